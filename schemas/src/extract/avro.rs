//! One pass over an Avro datum that keeps only what the mapping names.
//!
//! The writer's schema and the mapping's tree are compiled together into steps; the reader walks them beside the bytes and
//! skips every other value. There is no reader's schema: the mapping is one. A field that an older or newer writer does
//! not have is missing, and a renamed one is found by `first`.
//!
//! What a value becomes: strings, numbers and booleans as they are; enums their symbol; timestamps and dates a moment;
//! UUIDs their text; bytes text where they are UTF-8; fixed values hexadecimal; everything else is no scalar.
//!
//! Architecture Invariant: payloads are hostile. Nothing is allocated by a length that a payload claims, nesting is
//! bounded, and items without bytes are counted too.

use std::fmt::Write;
use std::sync::Arc;

use super::avro_steps::{Cell, Fixed, Step, Unit, compile};
use super::tree::Slots;
use super::{ExtractError, Extractor, Record, Scalar};

/// Values within values; schemas can contain themselves.
const MAX_DEPTH: usize = 64;
/// Values that a payload may have beside one per byte: those of types without bytes.
const FREE_VALUES: usize = 65_536;

/// Reads the payloads of one writer's schema.
#[derive(Debug)]
pub struct AvroReader {
    extractor: Arc<Extractor>,
    cells: Vec<Cell>,
}

impl AvroReader {
    /// Compiles a schema as JSON; `references` are the schemas that it names, each after those that it needs itself.
    ///
    /// # Errors
    /// In words: the text is no Avro schema, or a type that it names is missing.
    pub fn new(extractor: Arc<Extractor>, schema: &str, references: &[String]) -> Result<Self, String> {
        let cells = compile(&extractor.nodes, schema, references)?;
        Ok(AvroReader { extractor, cells })
    }

    /// Reads one datum.
    ///
    /// # Errors
    /// Bytes that are none of this schema, or a record that is neither a post nor the end of one.
    pub fn extract<'a>(&'a self, payload: &'a [u8]) -> Result<Record<'a>, ExtractError> {
        let mut slots: Slots<'a> = vec![None; self.extractor.slots];
        let mut walk = Walk {
            cells: &self.cells,
            slots: &mut slots,
            rest: payload,
            whole: payload.len(),
            left: payload.len() + FREE_VALUES,
        };
        let wrong =
            |walk: &Walk, what: &str| ExtractError::Avro(format!("{what} at byte {}", walk.whole - walk.rest.len()));
        match walk.value(0, MAX_DEPTH) {
            Err(what) => return Err(wrong(&walk, what)),
            Ok(()) if !walk.rest.is_empty() => return Err(wrong(&walk, "more bytes than the schema has")),
            Ok(()) => {}
        }
        self.extractor.record(slots)
    }
}

/// Walks the bytes and the cells side by side.
struct Walk<'w, 'a> {
    cells: &'a [Cell],
    slots: &'w mut Slots<'a>,
    rest: &'a [u8],
    whole: usize,
    /// Values that may still come.
    left: usize,
}

type Bad = &'static str;

impl<'a> Walk<'_, 'a> {
    fn value(&mut self, cell: usize, depth: usize) -> Result<(), Bad> {
        let cells = self.cells;
        let Cell { step, slot } = &cells[cell];
        let depth = depth.checked_sub(1).ok_or("values are nested too deeply")?;
        self.left = self.left.checked_sub(1).ok_or("more values than bytes")?;
        let found = match step {
            Step::Array { each, picked } => {
                self.array_items(*each, picked, depth)?;
                Some(Scalar::Compound)
            }
            Step::Map { each, picked } => {
                self.map_entries(*each, picked, depth)?;
                Some(Scalar::Compound)
            }
            Step::Union(variants) => {
                let variant = usize::try_from(self.long()?).ok().and_then(|index| variants.get(index));
                // The variant has the union's place in the tree, and its slot.
                return self.value(*variant.ok_or("a union without such a branch")?, depth);
            }
            Step::Record(fields) => {
                for field in fields {
                    self.value(*field, depth)?;
                }
                Some(Scalar::Compound)
            }
            single => self.single(single, slot.is_some())?,
        };
        if let Some(slot) = slot {
            self.slots[*slot] = found;
        }
        Ok(())
    }

    /// A value that holds no others; where it is not wanted, it is only passed over.
    fn single(&mut self, step: &'a Step, wanted: bool) -> Result<Option<Scalar<'a>>, Bad> {
        Ok(match step {
            Step::Null => None,
            Step::Bool => match self.take(1)?[0] {
                0 => Some(Scalar::Bool(false)),
                1 => Some(Scalar::Bool(true)),
                _ => return Err("a boolean that is none"),
            },
            Step::Number(unit) => Some(moment(self.long()?, *unit)),
            Step::Float => Some(float(f32::from_le_bytes(self.array()?).into())),
            Step::Double => Some(float(f64::from_le_bytes(self.array()?))),
            Step::Text | Step::Bytes | Step::Uuid | Step::Opaque if !wanted => {
                self.bytes()?;
                None
            }
            Step::Text => {
                let text = std::str::from_utf8(self.bytes()?).map_err(|_| "a string that is not UTF-8")?;
                Some(Scalar::Text(text.into()))
            }
            Step::Bytes => {
                let text = std::str::from_utf8(self.bytes()?);
                Some(text.map_or(Scalar::Compound, |text| Scalar::Text(text.into())))
            }
            Step::Opaque => {
                self.bytes()?;
                Some(Scalar::Compound)
            }
            Step::Uuid => Some(uuid(self.bytes()?)),
            Step::Fixed(size, kind) => {
                let bytes = self.take(*size)?;
                Some(match kind {
                    Fixed::Opaque => Scalar::Compound,
                    _ if !wanted => Scalar::Compound,
                    Fixed::Uuid => uuid(bytes),
                    Fixed::Hex => Scalar::Text(hex(bytes).into()),
                })
            }
            Step::Enum(symbols) => {
                let symbol = usize::try_from(self.long()?).ok().and_then(|index| symbols.get(index));
                let symbol = symbol.ok_or("an enum without such a symbol")?;
                Some(Scalar::Text(symbol.as_str().into()))
            }
            _ => return Err("a type that the schema does not define"),
        })
    }

    fn array_items(&mut self, each: usize, picked: &[(u64, usize)], depth: usize) -> Result<(), Bad> {
        let mut index = 0_u64;
        while let Some(count) = self.block(picked.is_empty())? {
            for _ in 0..count {
                let here = picked.iter().find(|(wanted, _)| *wanted == index);
                self.value(here.map_or(each, |(_, cell)| *cell), depth)?;
                index += 1;
            }
        }
        Ok(())
    }

    fn map_entries(&mut self, each: usize, picked: &[(String, usize)], depth: usize) -> Result<(), Bad> {
        while let Some(count) = self.block(picked.is_empty())? {
            for _ in 0..count {
                let key = self.bytes()?;
                let here = picked.iter().find(|(wanted, _)| wanted.as_bytes() == key);
                self.value(here.map_or(each, |(_, cell)| *cell), depth)?;
            }
        }
        Ok(())
    }

    /// Items of the next block; `None` at the end. A block that tells its size is passed over where nothing of it is wanted.
    fn block(&mut self, skip: bool) -> Result<Option<u64>, Bad> {
        let count = self.long()?;
        if count >= 0 {
            return Ok((count > 0).then_some(count as u64));
        }
        let bytes = usize::try_from(self.long()?).map_err(|_| "a block of a negative size")?;
        if bytes > self.rest.len() {
            return Err("a block that is longer than the payload");
        }
        if skip {
            self.rest = &self.rest[bytes..];
            return Ok(Some(0));
        }
        Ok(Some(count.unsigned_abs()))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Bad> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or("the payload ends too early")?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or("the payload ends too early")?;
        self.rest = rest;
        Ok(*taken)
    }

    fn bytes(&mut self) -> Result<&'a [u8], Bad> {
        let length = usize::try_from(self.long()?).map_err(|_| "a negative length")?;
        self.take(length)
    }

    /// Zigzag, seven bits a byte, the lowest first.
    fn long(&mut self) -> Result<i64, Bad> {
        let mut number = 0_u64;
        for (at, byte) in self.rest.iter().enumerate().take(10) {
            number |= u64::from(byte & 0x7f) << (at * 7);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
            }
        }
        Err(if self.rest.len() < 10 {
            "the payload ends too early"
        } else {
            "a number that is too long"
        })
    }
}

fn moment<'a>(number: i64, unit: Unit) -> Scalar<'a> {
    let micros = match unit {
        Unit::Plain => None,
        Unit::Days => number.checked_mul(86_400_000_000),
        Unit::Millis => number.checked_mul(1_000),
        Unit::Micros => Some(number),
        Unit::Nanos => Some(number.div_euclid(1_000)),
    };
    // One beyond all bounds stays a number, which is no time either.
    micros.map_or(Scalar::Whole(number.into()), Scalar::Moment)
}

/// A number that is none is no scalar, as in JSON.
pub(super) fn float<'a>(number: f64) -> Scalar<'a> {
    if number.is_finite() {
        Scalar::Float(number)
    } else {
        Scalar::Compound
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn uuid<'a>(bytes: &[u8]) -> Scalar<'a> {
    if bytes.len() != 16 {
        return Scalar::Compound;
    }
    let digits = hex(bytes);
    let parts = [
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..],
    ];
    Scalar::Text(parts.join("-").into())
}
