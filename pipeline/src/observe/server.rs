//! `/metrics`, `/healthz` and `/readyz` over HTTP/1.
//!
//! On a thread of its own with a runtime of its own: it answers while the line's runtime is busy, and can say so when
//! that does not answer at all. It stays while a fenced line starts again. Who may ask is up to the address: nothing here
//! asks for a password, and nothing here is secret.
//!
//! A connection is for one answer and a bounded time, so no client keeps its place for long: neither one that asks by
//! drops, nor one that asks again and again, nor one that does not read.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tamiz_model::Scorer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, oneshot};

use super::metrics::{self, Labels};
use super::{MetricsConfig, Verdict, process};
use crate::config::{Config, ConfigError, Problem};
use crate::jobs::JobError;
use crate::source::Stop;
use crate::stats::Stats;

/// What clients may take.
const BOUNDS: Bounds = Bounds {
    connections: 32,
    patience: Duration::from_secs(10),
};
/// How often the line's runtime is asked for a sign of life.
const BEAT: Duration = Duration::from_secs(1);

/// How much of the server clients may take.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Connections at once; the next ones wait.
    connections: usize,
    /// How long a client may take to ask; with the answer it has three times as long.
    patience: Duration,
}

/// What is shown: the counters, and handles to what counts by itself.
pub struct View {
    pub(super) stats: Arc<Stats>,
    pub(super) started: f64,
    pipeline: String,
    scorer: OnceLock<Scorer>,
    stop: OnceLock<Stop>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

impl View {
    /// A view of these counters.
    pub fn new(pipeline: &str, stats: Arc<Stats>) -> Self {
        View {
            stats,
            started: process::seconds_now(),
            pipeline: pipeline.into(),
            scorer: OnceLock::new(),
            stop: OnceLock::new(),
        }
    }

    pub(super) fn scorer(&self) -> Option<&Scorer> {
        self.scorer.get()
    }

    pub(super) fn labels(&self) -> Labels {
        let model = self.scorer().map(|scorer| scorer.identity().to_string());
        vec![
            ("version", env!("CARGO_PKG_VERSION").into()),
            ("pipeline", self.pipeline.clone()),
            ("model", model.unwrap_or_default()),
        ]
    }

    fn live(&self) -> Verdict {
        let queues = self.stats.watch().gauges.queues();
        let full = queues.get("sink").is_some_and(|queue| queue.depth == queue.capacity);
        self.stats.watch().health.live(full)
    }

    pub(super) fn ready(&self) -> Verdict {
        if self.stop.get().is_some_and(Stop::is_set) {
            return Err("stopping: what was read is committed first".into());
        }
        let watch = self.stats.watch();
        watch.health.ready(watch.lag.partitions())
    }
}

/// The server; it ends with the value.
pub struct Server {
    view: Arc<View>,
    address: SocketAddr,
    beat: tokio::task::JoinHandle<()>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves where `[metrics]` says; `None` where it names no address. Called on the runtime that is watched.
    ///
    /// # Errors
    /// The address is none, is taken, or is not this machine's.
    pub fn start(config: &Config, stats: &Arc<Stats>) -> Result<Option<Server>, JobError> {
        let Some(listener) = bind(&config.metrics)? else {
            return Ok(None);
        };
        let failed = || JobError::io("cannot serve `metrics.listen`");
        let address = listener.local_addr().map_err(failed())?;
        let view = Arc::new(View::new(&config.pipeline.name, Arc::clone(stats)));
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed())?;
        let shown = Arc::clone(&view);
        let thread = std::thread::Builder::new()
            .name("metrics".into())
            .spawn(move || runtime.block_on(serve(listener, shown, ended, BOUNDS)))
            .map_err(failed())?;
        tracing::info!(%address, "serving /metrics, /healthz and /readyz");
        Ok(Some(Server {
            beat: tokio::spawn(beat(Arc::clone(&view))),
            view,
            address,
            end: Some(end),
            thread: Some(thread),
        }))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Shows this model's figures too.
    pub fn show_model(&self, scorer: &Scorer) {
        // Shown already: a process has one model.
        let _ = self.view.scorer.set(scorer.clone());
    }

    /// Is not ready any more once this says to stop.
    pub fn heed(&self, stop: &Stop) {
        let _ = self.view.stop.set(stop.clone());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.beat.abort();
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It hears the end between two answers, each of which takes milliseconds.
            let _ = thread.join();
        }
    }
}

/// Takes the address; `None` where there is none to take.
///
/// # Errors
/// The address is none, is taken, or is not this machine's.
pub(crate) fn bind(config: &MetricsConfig) -> Result<Option<TcpListener>, JobError> {
    let wrong = |message| {
        ConfigError(vec![Problem {
            key: "metrics.listen".into(),
            message,
        }])
    };
    let Some(address) = config.address().map_err(wrong)? else {
        return Ok(None);
    };
    let listen = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let what = format!(
        "cannot listen at {address}: name another address in `metrics.listen`, or leave it empty to serve no metrics"
    );
    listen().map(Some).map_err(JobError::io(what))
}

/// A sign of life of the runtime that it runs on, and of a model that works on.
async fn beat(view: Arc<View>) {
    let mut batches = 0;
    loop {
        let health = &view.stats.watch().health;
        health.runtime_turned();
        let now = view.scorer().map_or(0, |scorer| scorer.stats().batches);
        if now != batches {
            health.line_moved();
            batches = now;
        }
        tokio::time::sleep(BEAT).await;
    }
}

async fn serve(listener: TcpListener, view: Arc<View>, mut ended: oneshot::Receiver<()>, bounds: Bounds) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "metrics are not served"),
    };
    let room = Arc::new(Semaphore::new(bounds.connections));
    loop {
        let next = async {
            let place = Arc::clone(&room).acquire_owned().await;
            (place, listener.accept().await)
        };
        let next = tokio::select! {
            next = next => next,
            _ = &mut ended => return,
        };
        let (Ok(place), Ok((stream, _))) = next else {
            // No file descriptor left, most likely: asking again at once would only burn the processor.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let conversation = converse(stream, Arc::clone(&view), bounds.patience);
        tokio::spawn(async move {
            conversation.await;
            drop(place);
        });
    }
}

/// Answers one request, and hangs up on a client that takes too long.
async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, view: Arc<View>, patience: Duration) {
    let answer = service_fn(move |request| {
        let answer = answer(&request, &view);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        // One that asks often enough would hold its place for good.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    // hyper bounds no write. A client that hangs up is normal.
    let _ = tokio::time::timeout(patience * 3, connection).await;
}

fn answer(request: &Request<Incoming>, view: &Arc<View>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = page(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n".into());
        refused
            .headers_mut()
            .insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/metrics" => {
            let mut answer = page(StatusCode::OK, metrics::text(view));
            let kind = hyper::header::HeaderValue::from_static(metrics::CONTENT_TYPE);
            answer.headers_mut().insert(CONTENT_TYPE, kind);
            answer
        }
        "/healthz" => verdict(view.live()),
        "/readyz" => verdict(view.ready()),
        _ => page(
            StatusCode::NOT_FOUND,
            "here are /metrics, /healthz and /readyz\n".into(),
        ),
    }
}

fn verdict(verdict: Verdict) -> Response<Full<Bytes>> {
    match verdict {
        Ok(remark) => page(StatusCode::OK, remark + "\n"),
        Err(reason) => page(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
    }
}

fn page(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let header = hyper::header::HeaderValue::from_static;
    let mut page = Response::new(Full::new(Bytes::from(text)));
    *page.status_mut() = status;
    page.headers_mut()
        .insert(CONTENT_TYPE, header("text/plain; charset=utf-8"));
    page.headers_mut().insert(CACHE_CONTROL, header("no-store"));
    page
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
