//! An Avro schema and a mapping's tree, compiled together into the steps of [`super::AvroReader`].

use std::collections::HashMap;
use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, NamesRef, UuidSchema};

use super::tree::Node;

/// Steps of one schema; a schema whose named types are used in more ways than this is refused.
const MAX_STEPS: usize = 100_000;

#[derive(Debug)]
pub(super) struct Cell {
    pub(super) step: Step,
    pub(super) slot: Option<usize>,
}

/// What stands in the bytes; numbers are those of cells.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Under construction.
    Unknown,
    Null,
    Bool,
    Number(Unit),
    Float,
    Double,
    Text,
    Bytes,
    /// Bytes that are no scalar.
    Opaque,
    Uuid,
    Fixed(usize, Fixed),
    Enum(Arc<[String]>),
    Array {
        each: usize,
        picked: Vec<(u64, usize)>,
    },
    Map {
        each: usize,
        picked: Vec<(String, usize)>,
    },
    Union(Vec<usize>),
    Record(Vec<usize>),
}

/// What a whole number counts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unit {
    Plain,
    Days,
    Millis,
    Micros,
    Nanos,
}

/// What a fixed value is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fixed {
    Hex,
    Uuid,
    Opaque,
}

/// Compiles a schema as JSON; `references` are the schemas that it names.
pub(super) fn compile(nodes: &[Node], schema: &str, references: &[String]) -> Result<Vec<Cell>, String> {
    let wrong = |error: apache_avro::Error| format!("it is no Avro schema: {}", shortened(&error.to_string()));
    let (schema, others) = if references.is_empty() {
        (Schema::parse_str(schema).map_err(wrong)?, Vec::new())
    } else {
        Schema::parse_str_with_list(schema, references).map_err(wrong)?
    };
    let mut names = NamesRef::new();
    for schema in others.iter().chain([&schema]) {
        collect(schema, &mut names);
    }
    let mut compiler = Compiler {
        nodes,
        names,
        cells: Vec::new(),
        known: HashMap::new(),
    };
    compiler.cell(&schema, Some(0))?;
    Ok(compiler.cells)
}

fn shortened(words: &str) -> String {
    words.chars().take(200).filter(|c| !c.is_control()).collect()
}

/// Notes the named types within a schema.
fn collect<'s>(schema: &'s Schema, names: &mut NamesRef<'s>) {
    match schema {
        Schema::Array(array) => collect(&array.items, names),
        Schema::Map(map) => collect(&map.types, names),
        Schema::Union(union) => union.variants().iter().for_each(|variant| collect(variant, names)),
        Schema::Record(record) => {
            names.insert(record.name.clone(), schema);
            record.fields.iter().for_each(|field| collect(&field.schema, names));
        }
        Schema::Enum(symbols) => drop(names.insert(symbols.name.clone(), schema)),
        Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
            names.insert(fixed.name.clone(), schema);
        }
        Schema::Decimal(decimal) => {
            if let InnerDecimalSchema::Fixed(fixed) = &decimal.inner {
                names.insert(fixed.name.clone(), schema);
            }
        }
        _ => {}
    }
}

/// Puts the schema and the mapping's tree together.
struct Compiler<'s> {
    nodes: &'s [Node],
    names: NamesRef<'s>,
    cells: Vec<Cell>,
    /// The cell of a named type at a place of the tree: types may contain themselves.
    known: HashMap<(Name, Option<usize>), usize>,
}

impl<'s> Compiler<'s> {
    /// The cell of a type at a node of the tree; without a node it is skipped.
    fn cell(&mut self, schema: &'s Schema, node: Option<usize>) -> Result<usize, String> {
        if let Schema::Ref { name } = schema {
            let named = self.names.get(name).copied();
            let named = named.ok_or_else(|| {
                format!(
                    "type `{}` is not defined: register it as a reference",
                    shortened(name.as_ref())
                )
            })?;
            return self.cell(named, node);
        }
        let name = schema.name().cloned();
        if let Some(known) = name.clone().and_then(|name| self.known.get(&(name, node))) {
            return Ok(*known);
        }
        let index = self.cells.len();
        if index == MAX_STEPS {
            return Err("it is too large".into());
        }
        self.cells.push(Cell {
            step: Step::Unknown,
            slot: node.and_then(|node| self.nodes[node].slot),
        });
        if let Some(name) = name {
            self.known.insert((name, node), index);
        }
        self.cells[index].step = self.step(schema, node)?;
        Ok(index)
    }

    fn step(&mut self, schema: &'s Schema, node: Option<usize>) -> Result<Step, String> {
        Ok(match schema {
            Schema::Null => Step::Null,
            Schema::Boolean => Step::Bool,
            Schema::Int | Schema::Long | Schema::TimeMillis | Schema::TimeMicros => Step::Number(Unit::Plain),
            Schema::Date => Step::Number(Unit::Days),
            Schema::TimestampMillis | Schema::LocalTimestampMillis => Step::Number(Unit::Millis),
            Schema::TimestampMicros | Schema::LocalTimestampMicros => Step::Number(Unit::Micros),
            Schema::TimestampNanos | Schema::LocalTimestampNanos => Step::Number(Unit::Nanos),
            Schema::Float => Step::Float,
            Schema::Double => Step::Double,
            Schema::String | Schema::Uuid(UuidSchema::String) => Step::Text,
            Schema::Bytes => Step::Bytes,
            Schema::Uuid(UuidSchema::Bytes) => Step::Uuid,
            Schema::BigDecimal => Step::Opaque,
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => Step::Opaque,
                InnerDecimalSchema::Fixed(fixed) => Step::Fixed(fixed.size, Fixed::Opaque),
            },
            Schema::Duration(fixed) => Step::Fixed(fixed.size, Fixed::Opaque),
            Schema::Fixed(fixed) => Step::Fixed(fixed.size, Fixed::Hex),
            Schema::Uuid(UuidSchema::Fixed(fixed)) => Step::Fixed(fixed.size, Fixed::Uuid),
            Schema::Enum(symbols) => Step::Enum(symbols.symbols.clone().into()),
            // References are resolved by `cell`.
            compound => self.compound(compound, node)?,
        })
    }

    /// Values that hold others.
    fn compound(&mut self, schema: &'s Schema, node: Option<usize>) -> Result<Step, String> {
        Ok(match schema {
            Schema::Array(array) => {
                let each = self.cell(&array.items, None)?;
                let mut picked = Vec::new();
                for (step, child) in self.children(node) {
                    if let Ok(index) = step.parse() {
                        picked.push((index, self.cell(&array.items, Some(*child))?));
                    }
                }
                Step::Array { each, picked }
            }
            Schema::Map(map) => {
                let each = self.cell(&map.types, None)?;
                let mut picked = Vec::new();
                for (key, child) in self.children(node) {
                    picked.push((key.clone(), self.cell(&map.types, Some(*child))?));
                }
                Step::Map { each, picked }
            }
            Schema::Union(union) => {
                let variants = union.variants().iter().map(|variant| self.cell(variant, node));
                Step::Union(variants.collect::<Result<_, _>>()?)
            }
            Schema::Record(record) => {
                let children = self.children(node);
                let fields = record.fields.iter().map(|field| {
                    let child = children
                        .iter()
                        .find(|(name, _)| *name == field.name)
                        .map(|(_, child)| *child);
                    self.cell(&field.schema, child)
                });
                Step::Record(fields.collect::<Result<_, _>>()?)
            }
            _ => Step::Unknown,
        })
    }

    fn children(&self, node: Option<usize>) -> &'s [(String, usize)] {
        let nodes = self.nodes;
        node.map_or(&[][..], |node| &nodes[node].children)
    }
}
