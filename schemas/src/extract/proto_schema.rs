//! Protobuf schemas as a registry keeps them: the text of a `.proto` file and of those that it imports.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost_reflect::{DescriptorPool, MessageDescriptor};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use protox::{Compiler, Error};

use super::Extractor;
use super::protobuf::ProtobufReader;

/// The name under which the text itself is compiled.
const MAIN: &str = "tamiz-schema.proto";
/// Braces within braces; the parser is recursive.
const MAX_NESTING: usize = 100;

/// The readers of every message that a schema declares.
#[derive(Debug)]
pub struct ProtobufSchema {
    /// By the message's place in the file: its number among the messages, then among those within it, and so on.
    readers: BTreeMap<Vec<u32>, ProtobufReader>,
}

impl ProtobufSchema {
    /// Compiles the text of a `.proto` file; `imports` are the files that it imports, by the name that it imports them
    /// by. Those of Google are known.
    ///
    /// # Errors
    /// In words: the text is no schema, or an import is missing.
    pub fn new(extractor: &Arc<Extractor>, text: &str, imports: &[(String, String)]) -> Result<Self, String> {
        let pool = compile(text, imports)?;
        let file = pool.get_file_by_name(MAIN).ok_or("it declares nothing")?;
        let mut readers = BTreeMap::new();
        let mut declared: Vec<(Vec<u32>, MessageDescriptor)> = numbered(Vec::new(), file.messages());
        while let Some((path, message)) = declared.pop() {
            declared.extend(numbered(path.clone(), message.child_messages()));
            readers.insert(path, ProtobufReader::new(Arc::clone(extractor), &message));
        }
        Ok(ProtobufSchema { readers })
    }

    /// The reader of the message at a place.
    pub fn message(&self, path: &[u32]) -> Option<&ProtobufReader> {
        self.readers.get(path)
    }
}

/// The reader of one message of a file: the text of a `.proto` file, or a descriptor set as `protoc
/// --include_imports --descriptor_set_out` writes it.
///
/// # Errors
/// In words: the file is no schema, or has no such message.
pub fn message_of_file(extractor: Arc<Extractor>, file: &[u8], message: &str) -> Result<ProtobufReader, String> {
    let pool = match std::str::from_utf8(file) {
        // A descriptor set is full of control characters.
        Ok(text) if text.chars().all(|c| !c.is_control() || c.is_whitespace()) => compile(text, &[])?,
        _ => DescriptorPool::decode(file).map_err(|error| format!("it is no descriptor set: {}", shortened(&error)))?,
    };
    let found = pool.get_message_by_name(message);
    let found = found.ok_or_else(|| {
        // What is imported of Google's own is not what anybody looks for.
        let names = pool
            .all_messages()
            .filter(|message| !message.is_map_entry() && message.package_name() != "google.protobuf");
        let names: Vec<String> = names
            .take(10)
            .map(|message| format!("`{}`", message.full_name()))
            .collect();
        format!("it has no message `{message}` but {}", names.join(", "))
    })?;
    Ok(ProtobufReader::new(extractor, &found))
}

/// Messages with their places. Those that stand for maps are not declared and not counted.
fn numbered(above: Vec<u32>, messages: impl Iterator<Item = MessageDescriptor>) -> Vec<(Vec<u32>, MessageDescriptor)> {
    let declared = messages.filter(|message| !message.is_map_entry());
    let place = |(number, message): (u32, MessageDescriptor)| ([&above[..], &[number]].concat(), message);
    (0..).zip(declared).map(place).collect()
}

fn compile(text: &str, imports: &[(String, String)]) -> Result<DescriptorPool, String> {
    if std::iter::once(text)
        .chain(imports.iter().map(|(_, text)| text.as_str()))
        .any(too_deep)
    {
        return Err("it is nested too deeply".into());
    }
    let wrong = |error: Error| format!("it is no Protobuf schema: {}", shortened(&error));
    let mut files = BTreeMap::from([(MAIN.to_owned(), text.to_owned())]);
    files.extend(imports.iter().cloned());
    let mut resolver = ChainFileResolver::new();
    resolver.add(Texts(files));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true);
    compiler.open_file(MAIN).map_err(wrong)?;
    Ok(compiler.descriptor_pool())
}

fn too_deep(text: &str) -> bool {
    let mut depth = 0_usize;
    text.bytes().any(|byte| {
        match byte {
            b'{' | b'<' | b'[' | b'(' => depth += 1,
            b'}' | b'>' | b']' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > MAX_NESTING
    })
}

fn shortened(error: &impl std::fmt::Display) -> String {
    error
        .to_string()
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect()
}

/// Files that are already here.
struct Texts(BTreeMap<String, String>);

impl FileResolver for Texts {
    fn open_file(&self, name: &str) -> Result<File, Error> {
        match self.0.get(name) {
            Some(text) => File::from_source(name, text),
            None => Err(Error::file_not_found(name)),
        }
    }
}
