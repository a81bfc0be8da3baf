//! Holds back log lines that repeat: a broker that is away gives dozens of the same warning a second.
//!
//! A line is known by the place in the code that writes it. Within a minute the first few of a place are written, and
//! when the minute is over one line says how many were left out. Nothing below `info` is held back: who asks for it wants
//! all of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata};
use tracing_subscriber::layer::{Context, Filter};

/// How long lines of one place are counted together.
const WINDOW: Duration = Duration::from_secs(60);
/// News come in legitimate bursts, one line per partition for instance: this many times as often as warnings.
const NEWS: u32 = 10;
/// Target of the line that says how many were left out; it is never held back itself.
const LEFT_OUT: &str = "tamiz::log";
/// How much of the first line is repeated in it, in characters.
const SHOWN: usize = 80;

/// The filter. Clones share their counts.
#[derive(Debug, Clone)]
pub(super) struct Repeats {
    per_window: u32,
    windows: Arc<Mutex<Windows>>,
}

#[derive(Debug, Default)]
struct Windows {
    open: HashMap<Place, Window>,
    /// Windows that are over and not told yet.
    over: Vec<Window>,
}

/// A place in the code. Lines that come through the `log` crate all have one callsite, and name their place themselves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    callsite: Identifier,
    file: Option<(String, u64)>,
}

#[derive(Debug)]
struct Window {
    opened: Instant,
    written: u32,
    left_out: u64,
    like: String,
}

impl Repeats {
    /// Warnings and errors of one place are written `per_window` times a minute; 0: always.
    pub(super) fn new(per_window: u32) -> Self {
        Repeats {
            per_window,
            windows: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Windows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limit(&self, metadata: &Metadata<'_>) -> Option<u32> {
        let most = match *metadata.level() {
            Level::ERROR | Level::WARN => self.per_window,
            Level::INFO => self.per_window.saturating_mul(NEWS),
            _ => return None,
        };
        (most > 0 && metadata.target() != LEFT_OUT).then_some(most)
    }

    fn admit(&self, event: &Event<'_>, now: Instant) -> bool {
        let Some(most) = self.limit(event.metadata()) else {
            return true;
        };
        let mut seen = Seen::default();
        event.record(&mut seen);
        let place = Place {
            callsite: event.metadata().callsite(),
            file: seen.file.map(|file| (file, seen.line)),
        };
        let windows = &mut *self.lock();
        let fresh = || Window {
            opened: now,
            written: 0,
            left_out: 0,
            like: seen.message,
        };
        let window = match windows.open.get_mut(&place) {
            Some(window) if now.saturating_duration_since(window.opened) < WINDOW => window,
            Some(window) => {
                let old = std::mem::replace(window, fresh());
                windows.over.extend((old.left_out > 0).then_some(old));
                window
            }
            None => windows.open.entry(place).or_insert_with(fresh),
        };
        if window.written < most {
            window.written += 1;
            return true;
        }
        window.left_out += 1;
        false
    }

    /// Takes the windows that were over before `now`.
    fn over(&self, now: Instant) -> Vec<Window> {
        let windows = &mut *self.lock();
        let ended = windows
            .open
            .extract_if(|_, window| now.saturating_duration_since(window.opened) >= WINDOW)
            .map(|(_, window)| window);
        let ended: Vec<Window> = ended.filter(|window| window.left_out > 0).collect();
        windows.over.extend(ended);
        std::mem::take(&mut windows.over)
    }

    /// Writes what was left out in the windows that are over. Called from outside of any log line: a filter must not log.
    pub(super) fn tell(&self) {
        tell(self.over(Instant::now()));
    }

    /// Writes what was left out so far: nothing is written after this.
    pub(super) fn tell_all(&self) {
        tell(self.over(Instant::now() + WINDOW));
    }
}

fn tell(windows: Vec<Window>) {
    for Window { left_out, like, .. } in windows {
        tracing::warn!(target: LEFT_OUT, like, "{left_out} similar lines were left out");
    }
}

impl<S> Filter<S> for Repeats {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn callsite_enabled(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::always()
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.admit(event, Instant::now())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // Without a hint of ours that of the filter beside us would not count.
        Some(LevelFilter::TRACE)
    }
}

/// The message of an event, and its place where the `log` crate tells it.
#[derive(Default)]
struct Seen {
    message: String,
    file: Option<String>,
    line: u64,
}

impl Visit for Seen {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "log.file" => self.file = Some(value.into()),
            "message" => self.message = value.chars().take(SHOWN).collect(),
            _ => {}
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "log.line" {
            self.line = value;
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}").chars().take(SHOWN).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use tracing_subscriber::prelude::*;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `work` writes past a filter of three a minute.
    fn lines(repeats: &Repeats, work: impl FnOnce()) -> Vec<String> {
        let written = Written::default();
        let to = written.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || to.clone())
            .with_ansi(false);
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(repeats.clone()));
        tracing::subscriber::with_default(subscriber, work);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    fn broker_down(times: u32) {
        for port in 0..times {
            tracing::warn!(port, "broker is down");
        }
    }

    #[test]
    fn the_first_of_a_place_are_written_and_the_rest_counted() {
        let repeats = Repeats::new(3);
        let lines = lines(&repeats, || {
            broker_down(50);
            tracing::warn!("another place");
            repeats.tell();
            repeats.tell_all();
            repeats.tell_all();
        });
        assert_eq!(lines.len(), 5, "{lines:#?}");
        assert!(
            lines[..3].iter().all(|line| line.contains("broker is down")),
            "{lines:#?}"
        );
        assert!(lines[3].contains("another place"), "{lines:#?}");
        let told = "47 similar lines were left out";
        assert!(
            lines[4].contains(told) && lines[4].contains("broker is down"),
            "{lines:#?}"
        );
    }

    #[test]
    fn a_new_minute_starts_anew_and_tells_of_the_old() {
        let repeats = Repeats::new(3);
        let lines = lines(&repeats, || {
            broker_down(5);
            for window in repeats.lock().open.values_mut() {
                window.opened -= WINDOW;
            }
            broker_down(1);
            repeats.tell();
        });
        assert_eq!(lines.len(), 5, "{lines:#?}");
        assert!(lines[4].contains("2 similar lines were left out"), "{lines:#?}");
    }

    #[test]
    fn news_are_held_back_later_and_details_never() {
        let repeats = Repeats::new(2);
        let count = |work: fn(u32)| lines(&repeats, || work(100)).len();
        assert_eq!(
            count(|times| (0..times).for_each(|n| tracing::info!(n, "assigned"))),
            20
        );
        assert_eq!(
            count(|times| (0..times).for_each(|n| tracing::debug!(n, "detail"))),
            100
        );
        let all = Repeats::new(0);
        assert_eq!(lines(&all, || broker_down(100)).len(), 100);
    }

    #[test]
    fn lines_of_the_log_crate_are_told_apart_by_their_place() {
        let repeats = Repeats::new(1);
        // As `tracing-log` hands them on: one callsite for all of a level.
        let through = |file: &str, line: u64| {
            tracing::warn!(log.file = file, log.line = line, "through the log crate");
        };
        let lines = lines(&repeats, || {
            for _ in 0..3 {
                through("a.rs", 1);
                through("a.rs", 2);
                through("b.rs", 1);
            }
        });
        assert_eq!(lines.len(), 3, "{lines:#?}");
    }
}
