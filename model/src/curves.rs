//! The course of a training run: `history.csv` for programs, `history.svg` for eyes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::error::ModelError;
use crate::plot::Svg;

const HEADER: &str = "step,seconds,set,metric,value\n";

/// The figures of a run so far, on disk after every change, so that a run can be watched and they survive its end.
#[derive(Debug)]
pub(crate) struct History {
    path: PathBuf,
    lines: String,
}

impl History {
    pub(crate) fn new(out: &Path) -> Self {
        History {
            path: out.join("history.csv"),
            lines: HEADER.to_owned(),
        }
    }

    /// Takes up the lines of a run that was cut short, up to the step where it goes on.
    pub(crate) fn pick_up(&mut self, step: usize) -> Result<(), ModelError> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()), // nothing was reported yet
            Err(error) => return Err(ModelError::read(&self.path, error)),
        };
        let before = |line: &&str| {
            let number = line.split(',').next().and_then(|number| number.parse::<usize>().ok());
            number.is_some_and(|number| number <= step)
        };
        self.lines = HEADER.to_owned();
        for line in text.lines().filter(before) {
            self.lines.push_str(line);
            self.lines.push('\n');
        }
        Ok(())
    }

    /// Adds the figures of one set.
    pub(crate) fn record(
        &mut self,
        (step, seconds): (usize, f64),
        set: &str,
        values: &BTreeMap<String, f64>,
    ) -> Result<(), ModelError> {
        for (metric, value) in values {
            // Writing to a string cannot fail.
            let _ = writeln!(self.lines, "{step},{seconds:.1},{set},{metric},{value:.5}");
        }
        let drawing = self.path.with_extension("svg");
        std::fs::write(&self.path, &self.lines).map_err(|error| ModelError::write(&self.path, error))?;
        std::fs::write(&drawing, draw(&self.lines)).map_err(|error| ModelError::write(&drawing, error))
    }
}

/// Steps and values.
type Curve = Vec<(f64, f64)>;

/// A curve with its set and metric.
type Named<'a> = ((&'a str, &'a str), Curve);

/// Two drawings: the training loss, and one figure of every validation set.
fn draw(lines: &str) -> String {
    let mut curves: BTreeMap<(&str, &str), Curve> = BTreeMap::new();
    for line in lines.lines().skip(1) {
        if let [step, _, set, metric, value] = line.split(',').collect::<Vec<_>>()[..]
            && let (Ok(step), Ok(value)) = (step.parse(), value.parse())
        {
            curves.entry((set, metric)).or_default().push((step, value));
        }
    }
    let (losses, figures): (Vec<_>, Vec<_>) = curves.into_iter().partition(|((_, metric), _)| *metric == "loss");
    // Every set has an accuracy, and where labels are uneven it says least: macro F1 comes first where there is one.
    let has_f1 = figures.iter().any(|((_, metric), _)| *metric == "macro_f1");
    let wanted = if has_f1 { "macro_f1" } else { "accuracy" };
    let figures: Vec<_> = figures
        .into_iter()
        .filter(|((_, metric), _)| *metric == wanted)
        .collect();
    let mut svg = Svg::new(WIDTH + 260.0, 2.0 * HEIGHT + 150.0, "Training");
    panel(&mut svg, 50.0, ("loss", &losses));
    panel(&mut svg, HEIGHT + 110.0, (wanted, &figures));
    svg.finish()
}

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 60.0;

/// Colours that differ in brightness too.
const INKS: [&str; 8] = [
    "#1f4e9c", "#d1601f", "#2f8f4e", "#8a3fa0", "#b0902b", "#c23b5a", "#3aa0b8", "#555555",
];

fn panel(svg: &mut Svg, top: f64, (name, curves): (&str, &[Named])) {
    let points = || curves.iter().flat_map(|(_, curve)| curve);
    let last = points().map(|point| point.0).fold(1.0, f64::max);
    let low = points().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let high = points().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
    if low > high {
        return; // nothing yet
    }
    let span = (high - low).max(1e-6);
    let place = |(step, value): (f64, f64)| (LEFT + WIDTH * step / last, top + HEIGHT * (high - value) / span);
    svg.text((LEFT, top - 8.0), "start", name);
    for (value, step) in [(low, 0.0), (high, last)] {
        let (x, y) = place((step, value));
        svg.text((LEFT - 6.0, y + 4.0), "end", &format!("{value:.3}"));
        svg.text((x, top + HEIGHT + 18.0), "middle", &format!("{step:.0}"));
        svg.line((LEFT, y), (LEFT + WIDTH, y), "#ccc");
    }
    for (number, ((set, _), curve)) in curves.iter().enumerate() {
        let ink = INKS[number % INKS.len()];
        for pair in curve.windows(2) {
            svg.line(place(pair[0]), place(pair[1]), ink);
        }
        let y = top + 14.0 + 18.0 * number as f64;
        svg.line((LEFT + WIDTH + 14.0, y - 4.0), (LEFT + WIDTH + 34.0, y - 4.0), ink);
        svg.text((LEFT + WIDTH + 40.0, y), "start", set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_has_a_line_for_every_set_and_survives_odd_lines() {
        let lines = format!(
            "{HEADER}50,1.0,train,loss,0.9\n100,2.0,train,loss,0.5\n100,2.0,a <b>,macro_f1,0.5\n200,3.0,a <b>,macro_f1,0.6\nodd\n"
        );
        let svg = draw(&lines);
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(
            svg.contains(">train<") && svg.contains("a &lt;b&gt;") && svg.contains("0.900"),
            "{svg}"
        );
        assert!(draw(HEADER).contains("</svg>"));
    }
}
