//! A bad network: a proxy on loopback that delays, throttles and cuts. It works only as the listener that the broker advertises.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How bad it is; may change while connections are open.
#[derive(Debug, Default)]
pub(crate) struct Weather {
    /// Added before each piece that passes.
    pub(crate) delay_millis: AtomicU64,
    /// Bytes a second and direction; 0: as fast as it goes.
    pub(crate) bytes_per_second: AtomicU64,
}

/// The proxy; its threads end with the process.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    pub(crate) weather: Arc<Weather>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    /// Takes a free port now; passes connections on once it is told where to.
    pub(crate) fn bind() -> (Proxy, TcpListener) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let proxy = Proxy {
            port: listener.local_addr().unwrap().port(),
            weather: Arc::default(),
            open: Arc::default(),
        };
        (proxy, listener)
    }

    pub(crate) fn forward(&self, listener: TcpListener, to: u16) {
        let (weather, open) = (Arc::clone(&self.weather), Arc::clone(&self.open));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A broker that is down refuses; so does the proxy then.
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else {
                    continue;
                };
                let pair = [&client, &server].map(|stream| stream.try_clone().unwrap());
                open.lock().unwrap().extend(pair);
                let (back, forth) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                for (from, to) in [(client, forth), (server, back)] {
                    let weather = Arc::clone(&weather);
                    std::thread::spawn(move || pass(from, to, &weather));
                }
            }
        });
    }

    /// Breaks every open connection.
    pub(crate) fn cut(&self) -> usize {
        let cut = std::mem::take(&mut *self.open.lock().unwrap());
        cut.iter()
            .filter(|stream| stream.shutdown(Shutdown::Both).is_ok())
            .count()
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, weather: &Weather) {
    let mut piece = vec![0; 16 * 1024];
    while let Ok(bytes) = from.read(&mut piece) {
        if bytes == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(weather.delay_millis.load(Relaxed)));
        let rate = weather.bytes_per_second.load(Relaxed);
        if rate > 0 {
            std::thread::sleep(Duration::from_secs_f64(bytes as f64 / rate as f64));
        }
        if to.write_all(&piece[..bytes]).is_err() {
            break;
        }
    }
    // The other side learns that there is nothing more to come.
    let _ = to.shutdown(Shutdown::Write);
}
