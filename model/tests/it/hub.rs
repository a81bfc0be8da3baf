//! Fetching from a Hub that is a thread of this test: what is right is kept, what is wrong leaves nothing behind.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};
use tamiz_model::{Checkpoint, HubOptions, locate};
use tempfile::TempDir;

use super::pretrained::{Kindred, foreign};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What is answered for a path; it can be changed while the Hub runs.
#[derive(Clone)]
struct Answer {
    status: u16,
    body: Vec<u8>,
    /// The connection ends after so many bytes of the body.
    cut: Option<usize>,
}

struct Hub {
    address: String,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    asked: Arc<AtomicUsize>,
}

impl Hub {
    /// A Hub with one repository, `ada/tiny`, whose branch `main` is at [`COMMIT`].
    fn start() -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hub = Hub {
            address: format!("http://{}", listener.local_addr().unwrap()),
            answers: Arc::default(),
            asked: Arc::default(),
        };
        let (answers, asked) = (hub.answers.clone(), hub.asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                asked.fetch_add(1, Ordering::SeqCst);
                answer(stream.unwrap(), &answers);
            }
        });
        let files = TempDir::new().unwrap();
        foreign(files.path(), Kindred::Bert, |_| ());
        let mut siblings = Vec::new();
        for name in ["config.json", "tokenizer.json", "model.safetensors"] {
            let body = std::fs::read(files.path().join(name)).unwrap();
            let mut sibling = json!({"rfilename": name, "size": body.len()});
            if name == "model.safetensors" {
                let sha256: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
                sibling["lfs"] = json!({"sha256": sha256, "size": body.len(), "pointerSize": 134});
            }
            siblings.push(sibling);
            hub.put(&format!("/ada/tiny/resolve/{COMMIT}/{name}"), 200, body);
        }
        siblings.push(json!({"rfilename": "pytorch_model.bin", "size": 12}));
        hub.put_revision("main", json!({"sha": COMMIT, "siblings": siblings}));
        hub
    }

    fn put(&self, path: &str, status: u16, body: Vec<u8>) {
        let answer = Answer {
            status,
            body,
            cut: None,
        };
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    fn put_revision(&self, revision: &str, about: serde_json::Value) {
        let path = format!("/api/models/ada/tiny/revision/{revision}?blobs=true");
        self.put(&path, 200, about.to_string().into_bytes());
    }

    fn change(&self, file: &str, change: impl Fn(&mut Answer)) {
        let path = format!("/ada/tiny/resolve/{COMMIT}/{file}");
        change(self.answers.lock().unwrap().get_mut(&path).unwrap());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn options(&self, cache: &Path) -> HubOptions {
        HubOptions {
            cache: cache.to_owned(),
            endpoint: self.address.clone(),
            offline: false,
            token: None,
            silence: Duration::from_secs(5),
        }
    }
}

fn answer(mut stream: TcpStream, answers: &Mutex<BTreeMap<String, Answer>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new())).unwrap_or_default();
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let path = request.split(' ').nth(1).unwrap_or_default();
    let missing = Answer {
        status: 404,
        body: b"not here".to_vec(),
        cut: None,
    };
    let answer = answers.lock().unwrap().get(path).cloned().unwrap_or(missing);
    let head = format!(
        "HTTP/1.1 {} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.status,
        answer.body.len()
    );
    let body = &answer.body[..answer.cut.unwrap_or(answer.body.len())];
    drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)));
}

fn refusal(name: &str, options: &HubOptions) -> String {
    let error = locate(name, options).expect_err("it must be refused").to_string();
    assert!(!error.contains('\n'), "one sentence, one line: {error}");
    error
}

#[test]
fn a_checkpoint_is_fetched_once_and_works_without_a_network_from_then_on() {
    let (hub, cache) = (Hub::start(), TempDir::new().unwrap());
    let options = hub.options(cache.path());
    let dir = locate("ada/tiny", &options).unwrap();
    assert!(dir.ends_with(format!("ada--tiny/{COMMIT}")), "{}", dir.display());
    assert_eq!(Checkpoint::open(&dir).unwrap().config.heads[0].name, "sentiment");
    assert!(!dir.join("pytorch_model.bin").exists());
    let asked = hub.asked();
    assert_eq!(asked, 4);
    assert_eq!(locate("ada/tiny", &options).unwrap(), dir);
    let offline = HubOptions {
        offline: true,
        endpoint: "http://127.0.0.1:9".into(),
        ..options.clone()
    };
    assert_eq!(locate("ada/tiny", &offline).unwrap(), dir);
    assert_eq!(locate(&format!("ada/tiny@{COMMIT}"), &offline).unwrap(), dir);
    assert_eq!(hub.asked(), asked);
    assert!(refusal("ada/tiny@v2", &offline).contains("HF_HUB_OFFLINE"));
    assert_eq!(hub.asked(), asked);

    // A branch stays where it was when it was first fetched.
    hub.put_revision("main", json!({"sha": "f".repeat(40), "siblings": []}));
    assert_eq!(locate("ada/tiny", &options).unwrap(), dir);
}

#[test]
fn what_is_kept_is_compared_with_its_hashes() {
    let (hub, cache) = (Hub::start(), TempDir::new().unwrap());
    let options = hub.options(cache.path());
    let path = locate("ada/tiny", &options).unwrap().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(refusal("ada/tiny", &options).contains("does not match its manifest"));
}

#[test]
fn downloads_that_go_wrong_leave_nothing_that_looks_right() {
    type Change = (&'static str, fn(&mut Answer), &'static str);
    let changes: [Change; 4] = [
        ("model.safetensors", |answer| answer.cut = Some(1000), "try again"),
        ("model.safetensors", |answer| answer.body[900] ^= 1, "sha256"),
        (
            "tokenizer.json",
            |answer| answer.body.truncate(50),
            "50 bytes came instead of",
        ),
        ("config.json", |answer| answer.status = 503, "503"),
    ];
    for (file, change, says) in changes {
        let (hub, cache) = (Hub::start(), TempDir::new().unwrap());
        let options = hub.options(cache.path());
        let untouched = hub.answers.lock().unwrap().clone();
        hub.change(file, change);
        let message = refusal("ada/tiny", &options);
        assert!(message.contains(says) && message.contains(file), "{file}: {message}");
        let home = cache.path().join("ada--tiny").join(COMMIT);
        assert!(!home.join(file).exists() && !home.join("hub.json").exists());
        *hub.answers.lock().unwrap() = untouched;
        assert!(locate("ada/tiny", &options).is_ok(), "the next try works");
    }
}

#[test]
fn names_and_hubs_that_cannot_be_are_refused_in_one_sentence() {
    let (hub, cache) = (Hub::start(), TempDir::new().unwrap());
    let options = hub.options(cache.path());
    for (name, says) in [
        ("ada/absent", "no such repository"),
        ("ada/tiny@v9", "no such repository, revision"),
        ("no-such-folder", "neither a folder nor a name"),
        ("../up/here", "neither a folder nor a name"),
        ("ada/../..", "neither a folder nor a name"),
        ("ada/tiny@../../x", "neither a folder nor a name"),
    ] {
        let message = refusal(name, &options);
        assert!(message.contains(says), "{name}: {message}");
    }
    hub.put_revision("odd", json!({"sha": "../../../etc", "siblings": []}));
    assert!(refusal("ada/tiny@odd", &options).contains("names no commit"));
    hub.put_revision("html", json!("<html>"));
    assert!(refusal("ada/tiny@html", &options).contains("not understood"));
    hub.put_revision(
        "pickled",
        json!({"sha": COMMIT, "siblings": [
            {"rfilename": "config.json"}, {"rfilename": "tokenizer.json"}, {"rfilename": "pytorch_model.bin"}]}),
    );
    assert!(refusal("ada/tiny@pickled", &options).contains("pickled (pytorch_model.bin)"));
    hub.put("/api/models/ada/closed/revision/main?blobs=true", 401, b"no".to_vec());
    assert!(refusal("ada/closed", &options).contains("HF_TOKEN"));
    let nowhere = HubOptions {
        endpoint: "http://127.0.0.1:9".into(),
        ..options
    };
    assert!(refusal("ada/tiny", &nowhere).contains("no connection"));
}
