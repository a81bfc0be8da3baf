"""Writes sentences whose label hangs on which word belongs where: cases.py FOLDER.

It makes train.jsonl, contrast.jsonl and negation.jsonl. A sentence holds a good and a bad judgement, and its twin holds exactly the same
words with the opposite label: whoever only counts words is right half of the time. Beginnings of up to twelve words keep the place in
the sentence from telling. The words are the same in all files, the pairs of judgements are not: a pair of the two test files is in no
sentence of train.jsonl.
"""

import itertools
import json
import pathlib
import random
import sys

GOOD = "good great lovely superb clever pleasant splendid charming brilliant delightful".split()
BAD = "bad awful ugly dull clumsy nasty dreadful boring terrible rotten".split()
THINGS = "food service film sound room price screen story staff garden".split()
FILLERS = "well so then and we were there on monday as my sister said to tell you in short after all".split()
# {y} decides: what comes last.
CONTRAST = [
    "the {a} is {x} but the {b} is {y}",
    "although the {a} is {x} the {b} is {y}",
]
# {y} decides: what is not denied.
NEGATION = [
    "the {a} is not {x} , it is {y}",
    "the {a} is {y} , it is not {x}",
    "nobody calls the {a} {x} and all call it {y}",
    "all call the {a} {y} and nobody calls it {x}",
]
# One judgement: what the words mean. In train.jsonl only.
SINGLE = ["the {a} is {y}", "the {a} and the {b} are {y}", "it is not {x}", "nobody calls the {a} {x}"]


def rows(templates, pairs, draw):
    for (good, bad), template in itertools.product(pairs, templates):
        a, b = draw.sample(THINGS, 2)
        beginning = "".join(draw.choice(FILLERS) + " " for _ in range(draw.randrange(13)))
        # The sentence and its twin: the same words, the judgements changed about.
        for x, y, label in ((good, bad, "negative"), (bad, good, "positive")):
            yield {"text": beginning + template.format(a=a, b=b, x=x, y=y), "label": label}


def main(folder):
    draw = random.Random(7)
    pairs = list(itertools.product(GOOD, BAD))
    held = lambda pair: (GOOD.index(pair[0]) + 3 * BAD.index(pair[1])) % 5 == 0
    old, new = [pair for pair in pairs if not held(pair)], [pair for pair in pairs if held(pair)]
    train = [row for _ in range(5) for row in rows(SINGLE + CONTRAST + NEGATION, old, draw)]
    files = {"train": train, "contrast": list(rows(CONTRAST, new, draw)), "negation": list(rows(NEGATION, new, draw))}
    target = pathlib.Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        (target / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        print(f"{name}: {len(lines)} sentences, {sum(line['label'] == 'positive' for line in lines)} positive")


main(sys.argv[1])
