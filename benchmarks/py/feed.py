"""Made-up posts as JSON lines, in the pipeline's own wire format: feed.py COUNT [FIRST] > FILE

Each text is another one, so that none is a duplicate; one in fifty holds an e-mail address and one in fifty a telephone number,
so that scrubbing has work. Post N is always the same.
"""

import datetime
import json
import random
import sys

WORDS = """harbour train market garden match winter film engine river concert budget doctor bridge student coffee window signal
council island paper summer leader battery camera island forest planet server museum kitchen airport ticket election weather
price record season artist company report village minister teacher driver station song goal record cloud phone road""".split()
VERBS = "found lost opened closed praised feared watched missed bought sold needed changed".split()
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)


def post(number):
    draw = random.Random(number)
    words = [draw.choice(WORDS) for _ in range(9)]
    text = f"the {words[0]} {draw.choice(VERBS)} the {words[1]} and the {words[2]}, {' '.join(words[3:])} again number {number}"
    if number % 50 == 7:
        text += f" write to {words[0]}.{number}@mail.example"
    if number % 50 == 23:
        text += f" call +44 20 7946 {number % 9000 + 1000}"
    at = START + datetime.timedelta(milliseconds=number % 86_400_000)
    return {"id": f"p{number}", "source": "made_up", "created_at": at.isoformat(), "author": f"a{number % 5003}", "text": text}


def main(count, first=0):
    for number in range(int(first), int(first) + int(count)):
        sys.stdout.write(json.dumps(post(number)) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:3])
