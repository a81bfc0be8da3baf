//! Questions to the binary's own server, and a collector that takes the spans it sends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use super::Running;

/// A server that is alone on its machine answers at once; this is for one that shares it with everything else.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a call serves its metrics, as its log says; waits until it does.
pub(crate) fn address(run: &mut Running) -> SocketAddr {
    run.wait_for(|run| served(&run.stderr()).is_some());
    served(&run.stderr()).unwrap()
}

fn served(log: &str) -> Option<SocketAddr> {
    let line = log.lines().find(|line| line.contains("serving /metrics"))?;
    let (_, rest) = line.split_once("address=")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Status and body of an answer.
pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
    ask(
        address,
        &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
    )
}

/// As [`get`], of a request that is written out.
pub(crate) fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// The metrics of a call at one moment.
pub(crate) struct Page(pub(crate) String);

impl Page {
    pub(crate) fn of(address: SocketAddr) -> Page {
        let (status, body) = get(address, "/metrics");
        assert_eq!(status, 200, "{body}");
        Page(body)
    }

    /// Series of a metric: their labels as written, and their values.
    pub(crate) fn series<'p>(&'p self, metric: &'p str) -> impl Iterator<Item = (&'p str, f64)> {
        self.0.lines().filter_map(move |line| {
            let (series, value) = line.rsplit_once(' ')?;
            let labels = series.strip_prefix(metric)?;
            let ours = labels.is_empty() || labels.starts_with('{');
            ours.then(|| (labels, value.parse().unwrap()))
        })
    }

    /// The sum of a metric's series that carry this label (empty: of all).
    pub(crate) fn sum(&self, metric: &str, label: &str) -> f64 {
        let with = self.series(metric).filter(|(labels, _)| labels.contains(label));
        with.map(|(_, value)| value).sum()
    }
}

/// A collector of spans. What it is sent can be read once the sender has ended.
pub(crate) struct Collector {
    pub(crate) url: String,
    bodies: mpsc::Receiver<Vec<u8>>,
}

impl Collector {
    pub(crate) fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, bodies) = mpsc::channel();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if sender.send(take(stream.unwrap())).is_err() {
                    return;
                }
            }
        });
        Collector { url, bodies }
    }

    /// All that was sent so far: the bytes, and the spans in them.
    pub(crate) fn spans(&self) -> (Vec<u8>, Vec<Span>) {
        let (mut bytes, mut spans) = (Vec::new(), Vec::new());
        while let Ok(body) = self.bodies.try_recv() {
            let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
            let scopes = request.resource_spans.into_iter().flat_map(|one| one.scope_spans);
            spans.extend(scopes.flat_map(|scope| scope.spans));
            bytes.extend(body);
        }
        (bytes, spans)
    }
}

fn take(mut stream: TcpStream) -> Vec<u8> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line).unwrap();
    assert!(line.starts_with("POST /v1/traces "), "{line}");
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .unwrap();
    body
}

/// A whole number of a span.
pub(crate) fn whole(span: &Span, name: &str) -> Option<i64> {
    let found = span.attributes.iter().find(|one| one.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::IntValue(value) => Some(*value),
        _ => None,
    }
}
