//! Clients that take their time.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

const ASK: &str = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";
/// One place, and little time.
const NARROW: Bounds = Bounds {
    connections: 1,
    patience: Duration::from_millis(200),
};
/// For a machine that has much else to do.
const AT_MOST: Duration = Duration::from_secs(20);

fn view() -> Arc<View> {
    Arc::new(View::new("x", Arc::new(Stats::default())))
}

/// Asks once, on a connection that it would keep, and reads until the server hangs up.
async fn ask(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(ASK.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_client_that_does_not_read_is_hung_up_on() {
    // A socket has room for a whole page; this has room for a line of it.
    let (mut client, server) = tokio::io::duplex(64);
    client.write_all(ASK.as_bytes()).await.unwrap();
    let started = Instant::now();
    let served = converse(server, view(), NARROW.patience);
    tokio::time::timeout(AT_MOST, served).await.unwrap();
    assert!(started.elapsed() >= NARROW.patience * 3, "the page went out unread");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert!(rest.starts_with(b"HTTP/1.1 200 OK") && rest.len() <= 64, "{rest:?}");
}

#[tokio::test]
async fn slow_clients_do_not_keep_another_one_out() {
    let many = ASK.repeat(200);
    let slow = [
        ("says nothing", ""),
        ("stops amid its request", "GET /metrics HTTP/1.1\r\nho"),
        ("keeps its connection", ASK),
        ("asks on and on, and does not read", many.as_str()),
    ];
    for (client, words) in slow {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = oneshot::channel();
        let server = tokio::spawn(serve(listener, view(), ended, NARROW));

        // First in the queue: the one place is its own.
        let mut first = TcpStream::connect(address).await.unwrap();
        // The server may hang up before it has heard all.
        let _ = first.write_all(words.as_bytes()).await;
        let answer = tokio::time::timeout(AT_MOST, ask(address)).await;
        let answer = answer.unwrap_or_else(|_| panic!("kept out by a client that {client}"));
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{client}: {answer}");
        assert!(answer.contains("connection: close"), "{client}: {answer}");
        drop(end);
        server.await.unwrap();
    }
}
