//! Plots as SVG, written by hand: a few rectangles and words need no library, and any browser shows them.

use std::fmt::Write as _;

use crate::calibrate::Bin;

const HEAD: &str = "font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\"";

/// Text that is safe inside SVG and HTML.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Control and direction marks could change what a reader sees around them.
            c if is_steering(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Whether a character shows nothing and steers what is shown: control characters, and marks that turn the writing direction.
pub(crate) fn is_steering(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A drawing that grows.
pub(crate) struct Svg {
    body: String,
    width: f64,
    height: f64,
}

impl Svg {
    pub(crate) fn new(width: f64, height: f64, title: &str) -> Self {
        let mut svg = Svg {
            body: String::new(),
            width,
            height,
        };
        svg.text((12.0, 22.0), "start", title);
        svg
    }

    fn rect(&mut self, (x, y): (f64, f64), (w, h): (f64, f64), fill: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.body,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" fill=\"{fill}\"/>"
        );
    }

    pub(crate) fn line(&mut self, (x, y): (f64, f64), (to_x, to_y): (f64, f64), stroke: &str) {
        let _ = writeln!(
            self.body,
            "<line x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{to_x:.1}\" y2=\"{to_y:.1}\" stroke=\"{stroke}\"/>"
        );
    }

    pub(crate) fn text(&mut self, (x, y): (f64, f64), anchor: &str, text: &str) {
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {HEAD}>{}</text>",
            escape(text)
        );
    }

    pub(crate) fn finish(self) -> String {
        let Svg { body, width, height } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n"
        )
    }
}

/// A confusion matrix: a row per true label, shaded by the share of its texts.
pub fn confusion(title: &str, labels: &[String], matrix: &[Vec<u64>]) -> String {
    const CELL: f64 = 62.0;
    const LEFT: f64 = 170.0;
    const TOP: f64 = 70.0;
    let side = CELL * labels.len() as f64;
    let mut svg = Svg::new(LEFT + side + 20.0, TOP + side + 150.0, title);
    svg.text(
        (12.0, 44.0),
        "start",
        "rows: truth, columns: prediction; shaded by share of the row",
    );
    for (place, row) in matrix.iter().enumerate() {
        let y = TOP + CELL * place as f64;
        let total = row.iter().sum::<u64>().max(1) as f64;
        svg.text((LEFT - 8.0, y + CELL / 2.0 + 4.0), "end", &labels[place]);
        for (column, &count) in row.iter().enumerate() {
            let x = LEFT + CELL * column as f64;
            let share = count as f64 / total;
            svg.rect((x, y), (CELL - 1.0, CELL - 1.0), &shade(share));
            let ink = if share > 0.55 { "#fff" } else { "#222" };
            let _ = writeln!(
                svg.body,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-family=\"sans-serif\" font-size=\"12\" fill=\"{ink}\">{count}</text>",
                x + CELL / 2.0,
                y + CELL / 2.0 + 4.0
            );
        }
    }
    for (column, label) in labels.iter().enumerate() {
        let (x, y) = (LEFT + CELL * (column as f64 + 0.5), TOP + side + 14.0);
        let _ = writeln!(
            svg.body,
            "<text transform=\"translate({x:.1},{y:.1}) rotate(45)\" {HEAD}>{}</text>",
            escape(label)
        );
    }
    svg.finish()
}

/// White to dark blue.
fn shade(share: f64) -> String {
    let mix = |from: f64, to: f64| (from + (to - from) * share.clamp(0.0, 1.0)) as u8;
    format!(
        "#{:02x}{:02x}{:02x}",
        mix(245.0, 20.0),
        mix(247.0, 60.0),
        mix(250.0, 120.0)
    )
}

/// A reliability plot: accuracy over confidence; bars on the diagonal are right.
pub fn reliability(title: &str, bins: &[Bin]) -> String {
    const SIDE: f64 = 320.0;
    const LEFT: f64 = 60.0;
    const TOP: f64 = 50.0;
    let at = |confidence: f64, accuracy: f64| (LEFT + SIDE * confidence, TOP + SIDE * (1.0 - accuracy));
    let mut svg = Svg::new(LEFT + SIDE + 30.0, TOP + SIDE + 130.0, title);
    let rows: usize = bins.iter().map(|bin| bin.rows).sum();
    for bin in bins {
        let (x, y) = at(bin.from, bin.accuracy);
        let width = SIDE * (bin.to - bin.from) - 1.0;
        svg.rect((x, y), (width, SIDE * bin.accuracy), "#4878a8");
        let (_, middle) = at(0.0, bin.confidence);
        svg.line((x, middle), (x + width, middle), "#c03020");
        let share = bin.rows as f64 / rows.max(1) as f64;
        svg.rect((x, TOP + SIDE + 90.0 - 50.0 * share), (width, 50.0 * share), "#999");
    }
    svg.line(at(0.0, 0.0), at(1.0, 1.0), "#888");
    svg.line(at(0.0, 0.0), at(1.0, 0.0), "#222");
    svg.line(at(0.0, 0.0), at(0.0, 1.0), "#222");
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let (x, y) = at(tick, 0.0);
        svg.text((x, y + 16.0), "middle", &format!("{tick}"));
        let (x, y) = at(0.0, tick);
        svg.text((x - 6.0, y + 4.0), "end", &format!("{tick}"));
    }
    svg.text(
        (LEFT, TOP + SIDE + 34.0),
        "start",
        "confidence; bars: accuracy, red: mean confidence",
    );
    svg.text(
        (LEFT, TOP + SIDE + 108.0),
        "start",
        &format!("share of the {rows} texts"),
    );
    svg.finish()
}

/// Groups of horizontal bars, each group on a scale of its own: one figure of several models.
pub fn bars(title: &str, names: &[String], figures: &[(String, Vec<f64>)]) -> String {
    const ROW: f64 = 20.0;
    const LEFT: f64 = 150.0;
    const WIDTH: f64 = 380.0;
    const COLOURS: [&str; 6] = ["#4878a8", "#c07030", "#50904c", "#98509c", "#808080", "#b0a030"];
    let height = 50.0 + figures.len() as f64 * (ROW * names.len() as f64 + 34.0);
    let mut svg = Svg::new(LEFT + WIDTH + 110.0, height, title);
    let mut y = 50.0;
    for (figure, values) in figures {
        svg.text((12.0, y + 4.0), "start", figure);
        y += 12.0;
        let largest = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        for (place, (name, &value)) in names.iter().zip(values).enumerate() {
            svg.text((LEFT - 8.0, y + 14.0), "end", name);
            let width = WIDTH * (value / largest).clamp(0.0, 1.0);
            svg.rect((LEFT, y + 2.0), (width, ROW - 5.0), COLOURS[place % COLOURS.len()]);
            svg.text((LEFT + width + 6.0, y + 14.0), "start", &short(value));
            y += ROW;
        }
        y += 22.0;
    }
    svg.finish()
}

/// Three digits that matter.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_are_whole_and_carry_no_markup_of_labels() {
        let labels = ["<script>".to_owned(), "b\u{202e}\u{1b}".to_owned()];
        let bin = Bin {
            from: 0.5,
            to: 0.6,
            rows: 3,
            confidence: 0.55,
            accuracy: 0.4,
        };
        for svg in [
            confusion("a & b", &labels, &[vec![1, 2], vec![0, 0]]),
            reliability("r", &[bin]),
            bars("c", &labels, &[("F1".to_owned(), vec![0.5, 2000.0])]),
        ] {
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
            assert!(!svg.contains("<script") && !svg.contains('\u{1b}') && !svg.contains('\u{202e}'));
            assert!(!svg.contains("NaN") && !svg.contains("inf"));
        }
    }
}
