//! `tamiz demo`: an embedded broker, made-up posts, the whole pipeline, a table, and SQL answers on the screen.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::RngCore;
use rdkafka::producer::Producer;

use super::embedded::Broker;
use super::posts::Posts;
use super::progress::{Progress, summary};
use super::run::{Until, run};
use super::sql::{Format, Session};
use super::{JobError, produce, scorer};
use crate::config::Config;
use crate::line::Line;
use crate::source::Stop;
use crate::stages::decode::Origin;
use crate::stats::Stats;

const TOPIC: &str = "posts";
const PARTITIONS: i32 = 4;
/// The embedded broker keeps 5 MB per partition and drops the oldest: the producer stays at most this far ahead.
const AHEAD: u64 = 20_000;

/// The queries that the demo answers, with what they tell.
const QUERIES: [(&str, &str); 5] = [
    (
        "Sentiment by topic",
        "SELECT topic['label'] AS topic, count(*) AS posts, round(avg(sentiment['score']), 3) + 0.0 AS sentiment, \
         round(avg(CASE WHEN sentiment['label'] = 'positive' THEN 1.0 ELSE 0.0 END), 2) AS positive, \
         round(avg(CASE WHEN sentiment['label'] = 'negative' THEN 1.0 ELSE 0.0 END), 2) AS negative \
         FROM posts WHERE lang = 'en' GROUP BY 1 ORDER BY posts DESC",
    ),
    (
        "The last day, by hour",
        "SELECT date_trunc('hour', created_at) AS hour, count(*) AS posts, round(avg(sentiment['score']), 3) + 0.0 AS sentiment \
         FROM posts GROUP BY 1 ORDER BY 1 DESC LIMIT 8",
    ),
    (
        "Who writes most (pseudonyms)",
        "SELECT author, count(*) AS posts, round(avg(sentiment['score']), 3) + 0.0 AS sentiment FROM posts \
         GROUP BY 1 ORDER BY posts DESC, author LIMIT 5",
    ),
    (
        "Noise and personal data",
        "SELECT 'noise' AS found, tag AS kind, count(*) AS posts FROM (SELECT unnest(noise) AS tag FROM posts) GROUP BY 2 \
         UNION ALL SELECT 'personal data', p['kind'], count(*) FROM (SELECT unnest(pii) AS p FROM posts) GROUP BY 2 \
         UNION ALL SELECT 'dead letter', stage || ': ' || reason, count(*) FROM dead_letters GROUP BY 2 \
         ORDER BY 1, 3 DESC",
    ),
    (
        "The model as a SQL function",
        "SELECT sentiment_label(line) AS sentiment, round(sentiment_score(line), 3) AS score, topic(line)['label'] AS topic, \
         line FROM (VALUES ('I love this team, what a game!'), ('Shares fell sharply after the profit warning'), \
         ('The parcel arrived on Tuesday')) AS t(line)",
    ),
];

/// How large, and where.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Posts to make.
    pub posts: u64,
    /// Where the tables go; a new folder below `data/demo` where absent.
    pub dir: Option<PathBuf>,
}

/// Runs the demo and writes its answers to `out`.
///
/// # Errors
/// As those of the parts.
pub async fn demo(mut config: Config, options: &DemoOptions, out: &mut dyn Write) -> Result<(), JobError> {
    let dir = folder(options)?;
    let say =
        |out: &mut dyn Write, line: &str| writeln!(out, "{line}").map_err(JobError::io("cannot write the answer"));
    let broker = Broker::start(TOPIC, PARTITIONS)?;
    prepare(&mut config, &dir, &broker.servers()?)?;
    let scorer = scorer(&config)?;
    let model = scorer
        .as_ref()
        .map_or("no model".into(), |scorer| scorer.identity().to_string());
    let steps = Line::new(&config, scorer.clone(), Origin::Kafka, Arc::default())?.steps();
    say(
        out,
        &format!(
            "{} posts → embedded Kafka ({PARTITIONS} partitions) → {} → Delta table",
            options.posts,
            steps.join(" → ")
        ),
    )?;
    say(out, &format!("model {model}\n"))?;

    let stats = Arc::new(Stats::default());
    let stop = Stop::default();
    let producer = feed(&config, options.posts, &stats, &stop)?;
    let progress = Progress::follow(Arc::clone(&stats), steps.clone(), Some(options.posts));
    let watched = watch(Arc::clone(&stats), options.posts, stop.clone());
    let result = run(
        &config,
        scorer.clone(),
        Until::Stopped,
        Arc::clone(&stats),
        stop.clone(),
    )
    .await;
    stop.set();
    watched.abort();
    let took = progress.finish();
    result?;
    producer
        .join()
        .map_err(|_| JobError::Failed("the demo's producer panicked".into()))??;
    let done = stats.snapshot();
    if done.read != options.posts || done.posts + done.dead_letters + done.ignored != done.read {
        return Err(JobError::Failed(format!(
            "{} posts were made, {} read: the counts do not add up",
            options.posts, done.read
        )));
    }
    say(out, &summary(&steps, &done, took))?;
    answer(&config, scorer, out).await?;
    say(
        out,
        &format!("\nThe tables lie in {}. Ask them yourself:", dir.display()),
    )?;
    say(
        out,
        &format!(
            "  tamiz sql -t posts={} \"SELECT sentiment['label'], count(*) FROM posts GROUP BY 1\"",
            dir.join("posts").display()
        ),
    )
}

fn folder(options: &DemoOptions) -> Result<PathBuf, JobError> {
    let dir = options
        .dir
        .clone()
        .unwrap_or_else(|| Path::new("data/demo").join(chrono::Local::now().format("%Y%m%d-%H%M%S").to_string()));
    let full = |dir: &Path| dir.join("posts").exists();
    if full(&dir) {
        return Err(JobError::Usage(format!(
            "`{}` holds a demo already: name another with --dir",
            dir.display()
        )));
    }
    std::fs::create_dir_all(&dir).map_err(JobError::io(format!("cannot make `{}`", dir.display())))?;
    Ok(dir)
}

fn prepare(config: &mut Config, dir: &Path, brokers: &str) -> Result<(), JobError> {
    let mut key = [0_u8; 32];
    rand::rng().fill_bytes(&mut key);
    let key_file = dir.join("pseudonym.key");
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    write_secret(&key_file, &hex).map_err(JobError::io(format!("cannot write `{}`", key_file.display())))?;
    let text = |path: PathBuf| path.display().to_string();
    config.pii.key_file = text(key_file);
    config.source.kafka.brokers = brokers.into();
    config.source.kafka.topics = vec![TOPIC.into()];
    config.source.kafka.group = "demo".into();
    // The embedded broker is inside this process.
    config.source.kafka.tls = Default::default();
    config.source.kafka.sasl = Default::default();
    config.sink.posts = text(dir.join("posts"));
    config.sink.dead_letters = text(dir.join("dead_letters"));
    config.sink.flush_seconds = config.sink.flush_seconds.min(2.0);
    config.input = Default::default();
    Ok(())
}

/// Writes a new file that nobody else may read.
fn write_secret(path: &Path, secret: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(secret.as_bytes())
}

type Feeder = std::thread::JoinHandle<Result<(), JobError>>;

fn feed(config: &Config, posts: u64, stats: &Arc<Stats>, stop: &Stop) -> Result<Feeder, JobError> {
    let producer = produce::producer(config.source.kafka.client()?)?;
    let (stats, stop) = (Arc::clone(stats), stop.clone());
    let feed = move || {
        for (number, post) in Posts::new(42, chrono::Utc::now().timestamp())
            .take(posts as usize)
            .enumerate()
        {
            while number as u64 > stats.snapshot().read + AHEAD && !stop.is_set() {
                producer.poll(Duration::from_millis(5));
            }
            produce::send(&producer, TOPIC, &post)?;
            if number % 256 == 0 {
                producer.poll(Duration::ZERO);
            }
        }
        let flushed = producer.flush(Duration::from_secs(30));
        flushed.map_err(|error| JobError::Failed(format!("the embedded broker did not take all posts: {error}")))
    };
    std::thread::Builder::new()
        .name("demo-producer".into())
        .spawn(feed)
        .map_err(JobError::io("cannot start a thread"))
}

/// Ends the run once every post was read.
fn watch(stats: Arc<Stats>, posts: u64, stop: Stop) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while stats.snapshot().read < posts {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stop.set();
    })
}

async fn answer(config: &Config, scorer: Option<tamiz_model::Scorer>, out: &mut dyn Write) -> Result<(), JobError> {
    let scored = scorer.is_some();
    let session = Session::new(config, scorer)?;
    session.table("posts", &config.sink.posts).await?;
    session.table("dead_letters", &config.sink.dead_letters).await?;
    for (title, query) in QUERIES {
        if query.contains("sentiment_label(") && !scored {
            continue;
        }
        writeln!(out, "── {title}").map_err(JobError::io("cannot write the answer"))?;
        session.answer(query, Format::Table, out).await?;
    }
    Ok(())
}
