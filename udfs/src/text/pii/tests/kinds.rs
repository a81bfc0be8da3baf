//! What is found, kind by kind, and what is left alone.

use super::{check, check_clean};

#[test]
fn emails_are_found_whole_and_nothing_else() {
    check(&[
        ("write to ana.b+news@mail.example.com.", "write to [EMAIL]."),
        ("(bob@example.co.uk)", "([EMAIL])"),
        ("mailto:bob_1@example.org?x=1", "mailto:[EMAIL]?x=1"),
        ("\"o'neil@example.com\"", "\"[EMAIL]\""),
        ("jürgen@exämple.de und ива@пример.рф", "[EMAIL] und [EMAIL]"),
        ("联系ana@example.com谢谢", "联系[EMAIL]谢谢"),
        ("415-555-0100@example.com", "[EMAIL]"),
        ("a@b.co,c@d.io", "[EMAIL],[EMAIL]"),
        ("x@example.com.2 y", "[EMAIL].2 y"),
        ("ａｎａ＠example．com", "[EMAIL]"),
    ]);
    check_clean(&[
        "a @ b",
        "icon@2x.png",
        "lodash@4.17.21",
        "git@github.com:org/repo.git",
        "user@localhost",
        "@",
    ]);
}

#[test]
fn mentions_are_handles_with_their_server() {
    check(&[
        ("@ana_b: hi @Bob!", "@user: hi @user!"),
        ("RT @x1: (@y) /@z", "RT @user: (@user) /@user"),
        ("@ana@social.example.org hello", "@user hello"),
        (
            "@ana.bsky.social and @ana.example.com, @bob.dev",
            "@user and @user, @user",
        ),
        ("thanks @bob.Great work @eva-", "thanks @user.Great work @user-"),
        ("谢谢@bob！", "谢谢@user！"),
        ("https://social.example/@ana/1", "https://social.example/@user/1"),
        ("@50cent @49ers", "@user @user"),
    ]);
    check_clean(&[
        "see you @5pm",
        "@ 10",
        "sold @300k @12",
        "@user @u_0123456789ab",
        "e.g.@x",
    ]);
}

#[test]
fn phones_need_evidence() {
    check(&[
        ("call +1 (415) 555-0100 now", "call [PHONE] now"),
        ("+442079460958", "[PHONE]"),
        ("+44 (0)20 7946 0958 ext. 12", "[PHONE]"),
        ("tel:+34-600-123-456", "tel:[PHONE]"),
        ("0044 20 7946 0958", "[PHONE]"),
        ("(415) 555-0100 or 415.555.0101", "[PHONE] or [PHONE]"),
        ("1-415-555-0100 x123", "[PHONE]"),
        ("415 555 0100", "[PHONE]"),
        (
            "06 12 34 56 78, 020 7946 0958, 030/1234567",
            "[PHONE], [PHONE], [PHONE]",
        ),
        ("(021) 0025-967", "[PHONE]"),
        ("call me at 5550101", "call me at [PHONE]"),
        ("call 73 448 266 or (96) 627-277", "call [PHONE] or [PHONE]"),
        ("you can reach us on 668 5702", "you can reach us on [PHONE]"),
        ("WhatsApp: 4155550100", "WhatsApp: [PHONE]"),
        ("📞 93 555 01 00", "📞 [PHONE]"),
        ("＋４４ ２０ ７９４６ ０９５８", "[PHONE]"),
        ("+1\u{2011}415\u{2011}555\u{2011}0100", "[PHONE]"),
        ("415\u{200b}-555-\u{200b}0100", "[PHONE]"),
    ]);
}

#[test]
fn other_numbers_are_no_phones() {
    check_clean(&[
        "1234567890 4155550100",
        "01.02.2023 12:30, 2023-01-02 10:00:00, 1/2/2023",
        "from 2015-2016 to 2020-2021",
        "$415 555 0100 and €2.345.678.901",
        "revenue of 1 234 567 890 in 2023",
        "+25 000 000 views, +12% -5",
        "#4155550100 id=4155550100",
        "order 123-456-7890 of lot 415-155-0100",
        "pi is 3.14159265358979",
        "scores 12 34 56 78 90 12",
        "https://example.com/status/4155550100?n=415-555-0100",
        "TSLA call 250 260 270 exp 2024",
        "1,234,567,890 shares at 415.55",
        "isbn 978-3-16-148410-0",
        "550e8400-e29b-41d4-a716-446655440000",
        "0.123 456 789 012",
        "call 2019 2020, calls 4500 4600",
        "the call 4500 4600 spread",
        "Foo et al. 23(12) 345-350",
        "we reach 12345678 people",
    ]);
}

#[test]
fn addresses_of_machines() {
    check(&[
        (
            "from 203.0.113.9:8080 and 203.0.113.0/24",
            "from [IPV4]:8080 and [IPV4]/24",
        ),
        ("http://203.0.113.9/x", "http://[IPV4]/x"),
        ("at 2001:db8::8a2e:370:7334.", "at [IPV6]."),
        ("[2001:db8:0:1:1:1:1:1]:443", "[[IPV6]]:443"),
        ("fe80::1, ::ffff:203.0.113.9", "[IPV6], [IPV6]"),
    ]);
    check_clean(&[
        "version 1.2.3.4",
        "v1.2.3.4",
        "1.2.3.4.5",
        "256.1.1.1",
        "127.0.0.1 ::1",
        "std::vec::Vec a::b face::bad",
        "at 12:30:45",
        "00:1b:44:11:3a:b7",
        "1.2.3",
    ]);
}

#[test]
fn cards_ibans_and_social_security_numbers_prove_themselves() {
    check(&[
        ("card 4111 1111 1111 1111 exp 12/25", "card [CARD] exp 12/25"),
        ("5555-5555-5555-4444", "[CARD]"),
        ("378282246310005, 6011111111111117", "[CARD], [CARD]"),
        ("3782 822463 10005", "[CARD]"),
        ("pay to GB82 WEST 1234 5698 7654 32.", "pay to [IBAN]."),
        ("iban:de89370400440532013000", "iban:[IBAN]"),
        ("ssn 123-45-6789, 123 45 6788", "ssn [SSN], [SSN]"),
        ("４１１１ １１１１ １１１１ １１１１", "[CARD]"),
        ("4111\u{200b}1111\u{200b}1111\u{200b}1111", "[CARD]"),
    ]);
    check_clean(&[
        "4111 1111 1111 1112",
        "1234567812345670",
        "GB82 WEST 1234 5698 7654 33",
        "000-12-3456 666-12-3456 900-12-3456 123-00-4567 123-45-0000",
        "123-45-67890",
        "a4111111111111111",
        "https://example.com/4111111111111111",
    ]);
}

#[test]
fn wallets_and_secrets_in_urls() {
    check(&[
        ("send to 1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2!", "send to [WALLET]!"),
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "[WALLET]"),
        (
            "https://scan.example/0x52908400098527886E0F7030069857D2E4169EE7",
            "https://scan.example/[WALLET]",
        ),
        (
            "ftp://ana:s3cret@files.example.com/x",
            "ftp://[URL_CREDENTIALS]@files.example.com/x",
        ),
        ("postgres://app:p@ss@db/x", "postgres://[URL_CREDENTIALS]@db/x"),
        ("https://ghp_abc@example.com/", "https://[URL_CREDENTIALS]@example.com/"),
        (
            "https://a.example/x?a=1&access_token=abc123def&b=2",
            "https://a.example/x?a=1&access_token=[URL_CREDENTIALS]&b=2",
        ),
        (
            "https://a.example/#api-key=abcdefgh",
            "https://a.example/#api-key=[URL_CREDENTIALS]",
        ),
    ]);
    check_clean(&[
        "ssh://git@example.com/repo",
        "https://example.com/?token=&q=token",
        "0x1234",
        "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN3",
        "note://x",
    ]);
}
