//! Labelled texts from JSON lines, plain or compressed with zstd: `{"text": …, "label": …}`, one object per line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use arrow::array::StringArray;
use serde::Deserialize;

use crate::error::ModelError;
use crate::scores::Head;

/// A line longer than this is an error: labelled texts are short, and memory stays bounded.
const MAX_LINE_BYTES: u64 = 4 << 20;

/// Largest zstd window accepted, as a power of two: 128 MiB, zstd's own limit without `--long`.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Texts with their labels, as places in a head's label list.
#[derive(Debug, Clone)]
pub struct Labelled {
    /// The texts.
    pub texts: StringArray,
    /// One label per text.
    pub labels: Vec<usize>,
}

/// Which rows of a file to take and what their labels are called in the head.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selection {
    /// The file's label to the head's label; labels without an entry keep their name.
    pub map: BTreeMap<String, String>,
    /// Fields and the value they must have, such as `lang = "english"`.
    pub only: BTreeMap<String, String>,
    /// The only labels of the head to choose from; all of them when empty.
    pub among: Vec<String>,
    /// Rows that have several labels are left out; without this they are an error.
    pub single_label: bool,
}

impl Selection {
    /// The head with the labels to choose from, and their places in the whole head.
    ///
    /// # Errors
    /// When `among` names a label that the head does not have, one twice, or fewer than two.
    pub fn choices(&self, head: &Head) -> Result<(Head, Vec<usize>), ModelError> {
        let wrong = |reason: String| ModelError::Labels {
            head: head.name.clone(),
            reason,
        };
        if self.among.is_empty() {
            return Ok((head.clone(), (0..head.labels.len()).collect()));
        }
        if let Some(unknown) = self.among.iter().find(|label| !head.labels.contains(label)) {
            return Err(wrong(format!(
                "it is to choose among `{unknown}`, but it has {}",
                head.labels.join(", ")
            )));
        }
        let places: Vec<usize> = (0..head.labels.len())
            .filter(|&place| self.among.contains(&head.labels[place]))
            .collect();
        if places.len() < 2 || places.len() != self.among.len() {
            return Err(wrong("to choose among needs two or more different labels".to_owned()));
        }
        let labels = places.iter().map(|&place| head.labels[place].clone()).collect();
        Ok((Head { labels, ..head.clone() }, places))
    }
}

#[derive(Deserialize)]
struct Row {
    text: String,
    label: Label,
    #[serde(flatten)]
    fields: BTreeMap<String, serde_json::Value>,
}

/// A label, alone or in a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Label {
    One(String),
    Several(Vec<String>),
}

/// Reads a file of labelled texts for one head; labels are places among [`Selection::choices`].
///
/// # Errors
/// When the file cannot be read, a line is no such object, a label is none of the head's, or no row is left.
pub fn read_labelled(path: &Path, head: &Head, selection: &Selection) -> Result<Labelled, ModelError> {
    let (head, _) = selection.choices(head)?;
    let places = label_places(&head, selection)?;
    let (mut texts, mut labels) = (Vec::new(), Vec::new());
    for_each_line(path, |line, number| {
        let wrong = |reason: String| ModelError::Row {
            path: path.to_owned(),
            line: number,
            reason,
        };
        let row: Row = serde_json::from_str(line)
            .map_err(|error| wrong(format!("not an object with text and label ({error})")))?;
        let wanted =
            |(field, value): (&String, &String)| row.fields.get(field).and_then(|found| found.as_str()) == Some(value);
        if !selection.only.iter().all(wanted) {
            return Ok(());
        }
        let label = match row.label {
            Label::One(label) => label,
            Label::Several(mut labels) if labels.len() == 1 => labels.remove(0),
            Label::Several(_) if selection.single_label => return Ok(()),
            Label::Several(labels) => {
                return Err(wrong(format!(
                    "{} labels, but a text has one in head `{}`",
                    labels.len(),
                    head.name
                )));
            }
        };
        let place = places.get(label.as_str()).ok_or_else(|| {
            wrong(format!(
                "unknown label `{label}`: head `{}` knows {}",
                head.name,
                known(&places)
            ))
        })?;
        texts.push(row.text);
        labels.push(*place);
        Ok(())
    })?;
    if texts.is_empty() {
        return Err(ModelError::malformed(path, "it has no labelled rows that fit"));
    }
    Ok(Labelled {
        texts: StringArray::from(texts),
        labels,
    })
}

/// Reads a file of texts that need no labels; other fields than `text` are looked at for [`Selection::only`] alone.
///
/// # Errors
/// When the file cannot be read, a line is no such object, or no row is left.
pub(crate) fn read_texts(path: &Path, selection: &Selection) -> Result<Labelled, ModelError> {
    #[derive(Deserialize)]
    struct Unlabelled {
        text: String,
        #[serde(flatten)]
        fields: BTreeMap<String, serde_json::Value>,
    }
    let mut texts = Vec::new();
    for_each_line(path, |line, number| {
        let row: Unlabelled = serde_json::from_str(line).map_err(|error| ModelError::Row {
            path: path.to_owned(),
            line: number,
            reason: format!("not an object with text ({error})"),
        })?;
        let wanted =
            |(field, value): (&String, &String)| row.fields.get(field).and_then(|found| found.as_str()) == Some(value);
        if selection.only.iter().all(wanted) {
            texts.push(row.text);
        }
        Ok(())
    })?;
    if texts.is_empty() {
        return Err(ModelError::malformed(path, "it has no texts that fit"));
    }
    Ok(Labelled {
        labels: vec![0; texts.len()],
        texts: StringArray::from(texts),
    })
}

/// What the file may call a label, and which place of the head it means.
fn label_places<'a>(head: &'a Head, selection: &'a Selection) -> Result<BTreeMap<&'a str, usize>, ModelError> {
    let mut places: BTreeMap<&str, usize> = head
        .labels
        .iter()
        .enumerate()
        .map(|(place, label)| (label.as_str(), place))
        .collect();
    for (theirs, ours) in &selection.map {
        let place = head
            .labels
            .iter()
            .position(|label| label == ours)
            .ok_or_else(|| ModelError::Labels {
                head: head.name.clone(),
                reason: format!(
                    "`{theirs}` is mapped to `{ours}`, but it has {}",
                    head.labels.join(", ")
                ),
            })?;
        places.insert(theirs, place);
    }
    Ok(places)
}

fn known(places: &BTreeMap<&str, usize>) -> String {
    places.keys().copied().collect::<Vec<_>>().join(", ")
}

/// Calls `each` with every line and its number, from one.
pub(crate) fn for_each_line(
    path: &Path,
    mut each: impl FnMut(&str, usize) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    let mut reader = open(path)?;
    let mut line = String::new();
    for number in 1.. {
        line.clear();
        let read = reader
            .by_ref()
            .take(MAX_LINE_BYTES)
            .read_line(&mut line)
            .map_err(|error| ModelError::read(path, error))?;
        if read == 0 {
            break;
        }
        if read as u64 == MAX_LINE_BYTES {
            let reason = format!("longer than {MAX_LINE_BYTES} bytes");
            return Err(ModelError::Row {
                path: path.to_owned(),
                line: number,
                reason,
            });
        }
        if !line.trim().is_empty() {
            each(&line, number)?;
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, ModelError> {
    let file = File::open(path).map_err(|error| ModelError::read(path, error))?;
    if path.extension().is_none_or(|extension| extension != "zst") {
        return Ok(Box::new(BufReader::new(file)));
    }
    let mut decoder = zstd::Decoder::new(file).map_err(|error| ModelError::read(path, error))?;
    decoder
        .window_log_max(ZSTD_WINDOW_LOG)
        .map_err(|error| ModelError::read(path, error))?;
    Ok(Box::new(BufReader::new(decoder)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn head() -> Head {
        Head::new("mood", vec!["good".into(), "bad".into()])
    }

    fn read(lines: &str, selection: &Selection) -> Result<Labelled, ModelError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(lines.as_bytes()).unwrap();
        read_labelled(file.path(), &head(), selection)
    }

    #[test]
    fn rows_are_selected_and_their_labels_mapped() {
        let selection = Selection {
            map: [("up".to_owned(), "good".to_owned())].into(),
            only: [("lang".to_owned(), "en".to_owned())].into(),
            ..Selection::default()
        };
        let lines = "{\"text\":\"a\",\"label\":\"up\",\"lang\":\"en\"}\n\n{\"text\":\"b\",\"label\":\"bad\",\"lang\":\"en\",\"x\":1}\n{\"text\":\"c\",\"label\":\"bad\",\"lang\":\"de\"}\n";
        let data = read(lines, &selection).unwrap();
        assert_eq!(data.texts, StringArray::from(vec!["a", "b"]));
        assert_eq!(data.labels, [0, 1]);
    }

    #[test]
    fn rows_with_several_labels_can_be_left_out() {
        let selection = Selection {
            single_label: true,
            ..Selection::default()
        };
        let lines = "{\"text\":\"a\",\"label\":[\"bad\"]}\n{\"text\":\"b\",\"label\":[\"bad\",\"good\"]}\n{\"text\":\"c\",\"label\":[]}\n";
        let data = read(lines, &selection).unwrap();
        assert_eq!((data.texts, data.labels), (StringArray::from(vec!["a"]), vec![1]));
    }

    #[test]
    fn compressed_files_read_the_same() {
        let file = tempfile::Builder::new().suffix(".jsonl.zst").tempfile().unwrap();
        let packed = zstd::encode_all("{\"text\":\"a\",\"label\":\"bad\"}\n".as_bytes(), 3).unwrap();
        std::fs::write(file.path(), packed).unwrap();
        assert_eq!(
            read_labelled(file.path(), &head(), &Selection::default())
                .unwrap()
                .labels,
            [1]
        );
    }

    #[test]
    fn unusable_lines_are_named_with_their_number() {
        for (lines, says) in [
            (
                "{\"text\":\"a\",\"label\":\"bad\"}\n{\"text\":\"b\",\"label\":\"angry\"}\n",
                "line 2: unknown label `angry`: head `mood` knows bad, good",
            ),
            ("{\"text\":\"a\"}\n", "line 1: not an object with text and label"),
            ("nonsense\n", "line 1: not an object"),
            (
                "{\"text\":\"a\",\"label\":[\"good\"]}\n{\"text\":\"b\",\"label\":[\"bad\",\"good\"]}\n",
                "line 2: 2 labels, but a text has one in head `mood`",
            ),
            ("", "no labelled rows"),
        ] {
            let message = read(lines, &Selection::default()).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
    }

    #[test]
    fn the_choice_can_be_restricted() {
        let head = Head::new("topic", ["a", "b", "c"].map(String::from).to_vec());
        let among = |labels: &[&str]| Selection {
            among: labels.iter().map(|&label| label.to_owned()).collect(),
            ..Selection::default()
        };
        let (chosen, places) = among(&["c", "a"]).choices(&head).unwrap();
        assert_eq!(
            (chosen.labels, places),
            (vec!["a".to_owned(), "c".to_owned()], vec![0, 2])
        );
        for (labels, says) in [
            (&["a", "d"][..], "`d`, but it has a, b, c"),
            (&["a"], "two or more"),
            (&["a", "a"], "two or more"),
        ] {
            let message = among(labels).choices(&head).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
    }

    #[test]
    fn a_map_to_a_label_that_the_head_lacks_is_refused() {
        let selection = Selection {
            map: [("up".to_owned(), "great".to_owned())].into(),
            ..Selection::default()
        };
        let message = read("{\"text\":\"a\",\"label\":\"up\"}\n", &selection)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("`up` is mapped to `great`, but it has good, bad"),
            "{message}"
        );
    }
}
