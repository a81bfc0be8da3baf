//! Secured Kafka: what is encrypted and logged in reaches the table, what is wrong is told in one sentence within seconds,
//! and no secret is told at all.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::http::HttpServer;
use crate::support::posts::made_up;
use crate::support::secure::Secure;
use crate::support::table::count;
use crate::support::{Ended, Folder, Running};

const POSTS: usize = 200;
const CLIENT_SECRET: &str = "client secret / with + signs";
/// How soon a wrong login or certificate is told, on two busy cores.
const SOON: Duration = Duration::from_secs(12);

/// A configuration with tables in the folder, its posts in `posts.jsonl`.
fn prepare(folder: &Folder, brokers: &str, topic: &str, sections: &str) {
    let posts = made_up(POSTS);
    folder.write("posts.jsonl", posts.payloads.join(&b'\n'));
    let kafka = format!("[source.kafka]\nbrokers = \"{brokers}\"\ntopics = [\"{topic}\"]\ngroup = \"{topic}\"\n");
    // librdkafka tells all it does, so that a secret in it would be seen.
    let kafka = kafka + "options = { debug = \"all\" }\n";
    let sink = "[sink]\nposts = \"posts\"\ndead_letters = \"dead\"\nflush_seconds = 1\n";
    folder.write("tamiz.toml", format!("{kafka}{sections}{sink}"));
}

/// The `[source.kafka.sasl]` section of a password.
fn sasl(mechanism: &str) -> String {
    format!("[source.kafka.sasl]\nmechanism = \"{mechanism}\"\nusername = \"tamiz\"\n")
}

/// A call that logs all it can.
fn call(folder: &Folder, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = folder.tamiz(arguments);
    command.args(["-c", "tamiz.toml"]).env("TAMIZ_LOG_LEVEL", "trace");
    command.envs(environment.iter().copied());
    command
}

/// Nothing of these was told.
fn silent(ended: &Ended, secrets: &[&str]) {
    for secret in secrets {
        let told = ended.stdout.contains(secret) || ended.stderr.contains(secret);
        assert!(!told, "a secret is told: `{secret}`\n{ended}");
    }
}

/// `check`, `produce` and `run` work, and tell no secret.
fn goes_through(folder: &Folder, topic: &str, environment: &[(&str, &str)], secrets: &[&str]) {
    let end = |arguments: &[&str]| Running::start(call(folder, arguments, environment)).wait();
    let checked = end(&["check", "--no-model"]).done();
    assert!(checked.stdout.contains("ok     kafka: cluster"), "{}", checked.stdout);
    let produced = end(&["produce", "--topic", topic, "posts.jsonl"]).done();
    assert!(produced.stderr.contains(&format!("{POSTS} messages")), "{produced}");
    let run = end(&["run", "--until-caught-up", "--no-model"]).done();
    assert_eq!(run.summary().read as usize, POSTS, "{run}");
    let rows = count(folder, &folder.text("posts"), "count(*)");
    assert_eq!(rows as u64, run.summary().posts);
    assert!(rows as usize > POSTS / 2, "{run}");
    for ended in [&checked, &produced, &run] {
        silent(ended, secrets);
    }
}

#[test]
fn scram_and_plain_over_tls_reach_the_table() {
    let Some(kafka) = Secure::find() else { return };
    for (mechanism, by_file) in [("scram_sha_512", false), ("scram_sha_256", true), ("plain", true)] {
        let folder = Folder::new();
        let topic = kafka.topic(2);
        let mut section = sasl(mechanism);
        let mut environment = vec![("TAMIZ_KAFKA_PASSWORD", kafka.password())];
        if by_file {
            section += &format!(
                "password_file = \"{}\"\n",
                folder.write("password", format!("{}\n", kafka.password()))
            );
            environment.clear();
        }
        prepare(&folder, kafka.brokers(), &topic.name, &(kafka.tls() + &section));
        goes_through(&folder, &topic.name, &environment, &[kafka.password()]);
    }
}

#[test]
fn mutual_tls_reaches_the_table() {
    let Some(kafka) = Secure::find() else { return };
    let folder = Folder::new();
    let topic = kafka.topic(1);
    let own = format!(
        "certificate_file = \"{}\"\nkey_file = \"{}\"\n",
        kafka.get("SECURE_CERTIFICATE"),
        kafka.get("SECURE_KEY")
    );
    prepare(&folder, kafka.get("SECURE_MUTUAL"), &topic.name, &(kafka.tls() + &own));
    let password = kafka.get("SECURE_KEY_PASSWORD");
    goes_through(
        &folder,
        &topic.name,
        &[("TAMIZ_KAFKA_KEY_PASSWORD", password)],
        &[password],
    );
    for (environment, words) in [
        (&[][..], ["cannot open `key_file`", "give its password"]),
        (
            &[("TAMIZ_KAFKA_KEY_PASSWORD", "wrong-one")],
            ["cannot open `key_file`", "its password is right"],
        ),
    ] {
        let ended = Running::start(call(&folder, &["run", "--no-model"], environment)).wait();
        ended.refused(2, &words);
        silent(&ended, &[password, "wrong-one"]);
    }
}

/// Hands out tokens that live for so long; every request must be right. `down` requests are answered with an error.
fn token_server(kafka: &'static Secure, seconds: i64, down: std::ops::Range<usize>) -> (HttpServer, Arc<AtomicUsize>) {
    let given = Arc::new(AtomicUsize::new(0));
    let (counted, number) = (Arc::clone(&given), AtomicUsize::new(0));
    let server = HttpServer::start("127.0.0.1:0", move |asked| {
        // The pair `tamiz-client` and the secret, both form-encoded (RFC 6749, 2.3.1).
        let pair = "tamiz-client:client+secret+%2F+with+%2B+signs";
        let wanted = format!(
            "Basic {}",
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pair)
        );
        if asked.header("authorization") != wanted || asked.body != "grant_type=client_credentials&scope=kafka%3Awrite"
        {
            return (401, "{\"error\":\"invalid_client\"}".to_owned());
        }
        if down.contains(&number.fetch_add(1, Ordering::SeqCst)) {
            return (503, String::new());
        }
        counted.fetch_add(1, Ordering::SeqCst);
        (
            200,
            serde_json::json!({"access_token": kafka.token(seconds), "expires_in": seconds}).to_string(),
        )
    });
    (server, given)
}

fn oauth(place: &str) -> String {
    format!(
        "[source.kafka.sasl]\nmechanism = \"oauthbearer\"\n{place}\nclient_id = \"tamiz-client\"\nscope = \"kafka:write\"\n"
    )
}

#[test]
fn tokens_are_renewed_while_a_run_goes_on_and_an_outage_of_their_server_is_outlived() {
    let Some(kafka) = Secure::find() else { return };
    let folder = Folder::new();
    let topic = kafka.topic(1);
    // The broker closes a connection whose token is over. The third request of the run meets an outage.
    let (server, given) = token_server(kafka, 6, 5..6);
    let place = format!("token_endpoint = \"{}\"", server.url("/token"));
    prepare(&folder, kafka.brokers(), &topic.name, &(kafka.tls() + &oauth(&place)));
    let environment = [
        ("TAMIZ_KAFKA_CLIENT_SECRET", CLIENT_SECRET),
        ("TAMIZ_LOG_LEVEL", "info"),
    ];
    let produce = || {
        let arguments = ["produce", "--topic", &topic.name, "posts.jsonl"];
        Running::start(call(&folder, &arguments, &environment)).wait().done()
    };
    let mut outputs = vec![produce()];
    let mut run = Running::start(call(&folder, &["run", "--no-model"], &environment));
    let rows = || {
        let there = folder.path("posts/_delta_log").exists();
        if there {
            count(&folder, &folder.text("posts"), "count(*)")
        } else {
            0
        }
    };
    let until = |what: &str, fine: &dyn Fn() -> bool, run: &Running| {
        let started = Instant::now();
        while !fine() {
            assert!(
                started.elapsed() < Duration::from_secs(90),
                "{what} does not come\n{}",
                run.stderr()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    until("the first half", &|| rows() > 0, &run);
    let (before, first) = (given.load(Ordering::SeqCst), rows());
    until(
        "a log line of the outage",
        &|| run.stderr().contains("no new token for Kafka"),
        &run,
    );
    until("two renewals", &|| given.load(Ordering::SeqCst) >= before + 2, &run);
    outputs.push(produce());
    until("the second half", &|| rows() >= 2 * first, &run);
    run.signal_when(libc::SIGTERM, Duration::ZERO, |_| true);
    let run = run.wait().done();
    assert_eq!(run.summary().read as usize, 2 * POSTS, "{run}");
    let complaints = run.stderr.matches("no new token for Kafka").count();
    assert_eq!(complaints, 1, "one line an attempt\n{run}");
    outputs.push(run);
    let asked = server.asked();
    assert!(
        asked
            .iter()
            .all(|asked| (asked.method.as_str(), asked.path.as_str()) == ("POST", "/token"))
    );
    // The first part of every token of this key is the same, and is no secret.
    for ended in &outputs {
        silent(ended, &[CLIENT_SECRET, "client+secret", &kafka.token(1)[..30]]);
    }
}

#[test]
fn a_token_that_someone_else_renews_is_read_from_its_file() {
    let Some(kafka) = Secure::find() else { return };
    let folder = Folder::new();
    let topic = kafka.topic(1);
    let token = kafka.token(300);
    let place = format!("token_file = \"{}\"", folder.write("token", &token));
    prepare(&folder, kafka.brokers(), &topic.name, &(kafka.tls() + &oauth(&place)));
    goes_through(&folder, &topic.name, &[], &[&token]);
    folder.write("token", kafka.token(-60));
    let ended = folder.run(&["run", "--no-model", "-c", "tamiz.toml"]);
    ended.refused(1, &["is expired already", "token"]);
}

/// `check` and `run` refuse soon, with these words in one sentence.
fn is_refused(folder: &Folder, environment: &[(&str, &str)], words: &[&str], secrets: &[&str]) {
    let mut command = folder.tamiz(&["run", "--no-model", "-c", "tamiz.toml"]);
    command.envs(environment.iter().copied());
    let run = Running::start(command).wait();
    run.refused(1, words);
    assert!(run.took < SOON, "{run}");
    assert!(!folder.path("posts").exists(), "a table was made\n{run}");
    let own: Vec<&str> = run.stderr.lines().filter(|line| line.starts_with("tamiz: ")).collect();
    assert_eq!(own.len(), 1, "{run}");
    let mut command = folder.tamiz(&["check", "--no-model", "-c", "tamiz.toml"]);
    command.envs(environment.iter().copied());
    let checked = Running::start(command).wait();
    assert_eq!(checked.status.code(), Some(1), "{checked}");
    let line = checked.stdout.lines().find(|line| line.starts_with("wrong  kafka: "));
    let line = line.unwrap_or_else(|| panic!("{}", checked.stdout));
    assert!(words.iter().all(|word| line.contains(word)), "{line}");
    let mut command = folder.tamiz(&["produce", "--topic", "t", "posts.jsonl", "-c", "tamiz.toml"]);
    command.envs(environment.iter().copied());
    let produced = Running::start(command).wait();
    produced.refused(1, words);
    for ended in [&run, &checked, &produced] {
        silent(ended, secrets);
    }
}

#[test]
fn a_wrong_login_is_told() {
    let Some(kafka) = Secure::find() else { return };
    let folder = Folder::new();
    let topic = kafka.topic(1);
    let right = [("TAMIZ_KAFKA_PASSWORD", kafka.password())];
    let wrong = [("TAMIZ_KAFKA_PASSWORD", "not-the-password")];
    let secrets = [kafka.password(), "not-the-password"];
    for mechanism in ["scram_sha_512", "plain"] {
        prepare(&folder, kafka.brokers(), &topic.name, &(kafka.tls() + &sasl(mechanism)));
        let words = [
            "refuses the login of `tamiz`",
            kafka.brokers(),
            "source.kafka.sasl.username",
            "password",
        ];
        is_refused(&folder, &wrong, &words, &secrets);
    }
    // The listener for certificates offers no login.
    let own = format!(
        "certificate_file = \"{}\"\nkey_file = \"{}\"\n",
        kafka.get("SECURE_CERTIFICATE"),
        kafka.get("SECURE_KEY")
    );
    prepare(
        &folder,
        kafka.get("SECURE_MUTUAL"),
        &topic.name,
        &(kafka.tls() + &own + &sasl("scram_sha_512")),
    );
    let environment = [right[0], ("TAMIZ_KAFKA_KEY_PASSWORD", kafka.get("SECURE_KEY_PASSWORD"))];
    is_refused(
        &folder,
        &environment,
        &["knows no login", "source.kafka.sasl.mechanism"],
        &secrets,
    );
    // The listener for logins, without one.
    prepare(&folder, kafka.brokers(), &topic.name, &kafka.tls());
    is_refused(&folder, &[], &["hangs up", "source.kafka.sasl.mechanism"], &secrets);
}

#[test]
fn a_mechanism_that_is_not_offered_is_told_with_those_that_are() {
    let Some(kafka) = Secure::find() else { return };
    let folder = Folder::new();
    let topic = kafka.topic(1);
    prepare(
        &folder,
        kafka.get("SECURE_ONLY_SCRAM"),
        &topic.name,
        &(kafka.tls() + &sasl("plain")),
    );
    let words = ["does not offer PLAIN but SCRAM-SHA-512", "source.kafka.sasl.mechanism"];
    is_refused(
        &folder,
        &[("TAMIZ_KAFKA_PASSWORD", kafka.password())],
        &words,
        &[kafka.password()],
    );
}

#[test]
fn a_wrong_token_and_a_wrong_token_server_are_told() {
    let Some(kafka) = Secure::find() else { return };
    let folder = Folder::new();
    let topic = kafka.topic(1);
    let (server, given) = token_server(kafka, 300, 0..0);
    let place = format!("token_endpoint = \"{}\"", server.url("/token"));
    prepare(&folder, kafka.brokers(), &topic.name, &(kafka.tls() + &oauth(&place)));
    let wrong = [("TAMIZ_KAFKA_CLIENT_SECRET", "guessed")];
    is_refused(
        &folder,
        &wrong,
        &["refuses the client (401", "invalid_client", "/token"],
        &["guessed"],
    );
    assert_eq!(given.load(Ordering::SeqCst), 0);
    let place = "token_endpoint = \"http://127.0.0.1:1/token\"";
    prepare(&folder, kafka.brokers(), &topic.name, &(kafka.tls() + &oauth(place)));
    is_refused(
        &folder,
        &wrong,
        &["no token", "127.0.0.1:1", "no connection"],
        &["guessed"],
    );
    // Signed by nobody.
    let token = kafka.token(300);
    let forged = format!("{}.{}", token.rsplit_once('.').unwrap().0, "Zm9yZ2Vk");
    let place = format!("token_file = \"{}\"", folder.write("token", &forged));
    prepare(&folder, kafka.brokers(), &topic.name, &(kafka.tls() + &oauth(&place)));
    is_refused(&folder, &[], &["refuses the token", "issuer"], &[&forged]);
}

#[test]
fn a_wrong_certificate_is_told_with_the_reason() {
    let Some(kafka) = Secure::find() else { return };
    let environment = [("TAMIZ_KAFKA_PASSWORD", kafka.password())];
    let refuse = |brokers: &str, tls: &str, words: &[&str]| {
        let folder = Folder::new();
        prepare(&folder, brokers, "t", &format!("{tls}{}", sasl("scram_sha_512")));
        is_refused(&folder, &environment, words, &[kafka.password()]);
    };
    let expired = kafka.server("127.0.0.1", -1, true);
    refuse(&expired, &kafka.tls(), &["expired on", "renew it", &expired]);
    let elsewhere = kafka.server("elsewhere.example", 5, true);
    refuse(
        &elsewhere,
        &kafka.tls(),
        &["is for `elsewhere.example`", "source.kafka.brokers", &elsewhere],
    );
    let stranger = kafka.server("127.0.0.1", 5, false);
    refuse(&stranger, &kafka.tls(), &["is not trusted", "ca.pem", &stranger]);
    // The system's authorities do not know ours.
    refuse(
        kafka.brokers(),
        "[source.kafka.tls]\nenabled = true\n",
        &["is not trusted", "source.kafka.tls.ca_file", kafka.brokers()],
    );
}

#[test]
fn a_missing_certificate_of_ours_and_ports_of_another_kind_are_told() {
    let Some(kafka) = Secure::find() else { return };
    let refuse = |brokers: &str, sections: &str, words: &[&str]| {
        let folder = Folder::new();
        prepare(&folder, brokers, "t", sections);
        is_refused(
            &folder,
            &[("TAMIZ_KAFKA_PASSWORD", kafka.password())],
            words,
            &[kafka.password()],
        );
    };
    let (mutual, open) = (kafka.get("SECURE_MUTUAL"), kafka.get("SECURE_OPEN"));
    refuse(
        mutual,
        &kafka.tls(),
        &["asks for a certificate of ours", "certificate_file", mutual],
    );
    refuse(
        open,
        &kafka.tls(),
        &["listener without TLS", "source.kafka.tls.enabled = false", open],
    );
    refuse(
        kafka.brokers(),
        "",
        &["TLS listener", "source.kafka.tls.enabled = true", kafka.brokers()],
    );
    refuse(open, &sasl("scram_sha_512"), &["knows no login", open]);
}

#[test]
fn contradictions_and_secrets_in_the_file_are_told_before_any_connection() {
    let cases: [(&str, &[&str]); 13] = [
        (
            "[source.kafka.sasl]\nmechanism = \"plain\"\nusername = \"u\"\n",
            &["PLAIN without TLS", "allow_without_tls"],
        ),
        (
            "[source.kafka.sasl]\nmechanism = \"scram_sha_512\"\n",
            &["source.kafka.sasl.username", "name one"],
        ),
        (
            "[source.kafka.sasl]\nmechanism = \"scram_sha_512\"\nusername = \"u\"\n",
            &[
                "the password of `u` is missing",
                "TAMIZ_KAFKA_PASSWORD",
                "password_file",
            ],
        ),
        (
            "[source.kafka.sasl]\nmechanism = \"kerberos\"\n",
            &["kerberos", "scram_sha_512"],
        ),
        (
            "[source.kafka.sasl]\nusername = \"u\"\n",
            &["source.kafka.sasl.mechanism", "name one"],
        ),
        (
            "[source.kafka.sasl]\npassword = \"hunter2\"\n",
            &["source.kafka.sasl.password", "password_file"],
        ),
        (
            "[source.kafka.options]\n\"sasl.password\" = \"hunter2\"\n",
            &["sasl.password", "TAMIZ_KAFKA_PASSWORD"],
        ),
        (
            "[source.kafka.options]\n\"ssl.key.pem\" = \"hunter2\"\n",
            &["ssl.key.pem", "key_file"],
        ),
        (
            "[source.kafka.options]\n\"sasl.oauthbearer.client.secret\" = \"hunter2\"\n",
            &["client.secret", "TAMIZ_KAFKA_CLIENT_SECRET"],
        ),
        (
            "[source.kafka.options]\n\"security.protocol\" = \"ssl\"\n",
            &["security.protocol", "source.kafka.tls.enabled"],
        ),
        (
            "[source.kafka.options]\n\"fetch.min.bites\" = \"hunter2\"\n",
            &["librdkafka knows no option `fetch.min.bites`", "take it out"],
        ),
        (
            "[source.kafka.tls]\nca_file = \"x\"\n",
            &["source.kafka.tls.ca_file", "TLS is off"],
        ),
        (
            "[source.kafka.tls]\nenabled = true\nca_file = \"nowhere.pem\"\n",
            &["cannot read `ca_file` `nowhere.pem`"],
        ),
    ];
    for (text, words) in cases {
        let folder = Folder::new();
        folder.write("posts.jsonl", "{}");
        folder.write("tamiz.toml", text);
        for arguments in [&["run", "--no-model"][..], &["produce", "--topic", "t", "posts.jsonl"]] {
            let ended = Running::start(call(&folder, arguments, &[("TAMIZ_LOG_LEVEL", "info")])).wait();
            // `produce` reads only what it needs of the file, and what is in `options` comes before librdkafka.
            ended.refused(2, words);
            silent(&ended, &["hunter2"]);
            assert!(ended.took < Duration::from_secs(5), "{ended}");
        }
    }
}
