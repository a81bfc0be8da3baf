//! One pass over a Protobuf message that keeps only what the mapping names.
//!
//! A message's descriptor and the mapping's tree are compiled together into the fields that matter; the reader walks the
//! wire format and passes over every other field by its length. Fields that the schema does not know are passed over too,
//! so that writers may be newer.
//!
//! Pointers name fields as the schema or as its JSON form does (`created_at`, `createdAt`), items of repeated fields by
//! number, entries of maps by key. What a value becomes: enums their name, `google.protobuf.Timestamp` a moment, wrappers
//! what they wrap, bytes text where they are UTF-8. A field that is not on the wire is missing, but for booleans and enums
//! without presence: there it has its default, which senders leave out.
//!
//! Architecture Invariant: payloads are hostile. Nothing is allocated by a length that a payload claims, and no deeper
//! than the mapping's tree is nesting followed.

use std::sync::Arc;

use prost_reflect::MessageDescriptor;

use super::avro::float;
use super::protobuf_plan::{Absent, Field, Plan, Shape, Target, Value, compile};
use super::tree::Slots;
use super::wire::{Bad, Raw, Wire};
use super::{ExtractError, Extractor, Record, Scalar};

/// Reads the payloads of one message type.
#[derive(Debug)]
pub struct ProtobufReader {
    extractor: Arc<Extractor>,
    plans: Vec<Plan>,
}

impl ProtobufReader {
    /// Compiles the reader of a message.
    pub fn new(extractor: Arc<Extractor>, message: &MessageDescriptor) -> Self {
        let plans = compile(&extractor.nodes, message);
        ProtobufReader { extractor, plans }
    }

    /// Reads one message.
    ///
    /// # Errors
    /// Bytes that are no message, text that is not UTF-8, or a record that is neither a post nor the end of one.
    pub fn extract<'a>(&'a self, payload: &'a [u8]) -> Result<Record<'a>, ExtractError> {
        let mut slots: Slots<'a> = vec![None; self.extractor.slots];
        let mut walk = Walk {
            plans: &self.plans,
            slots: &mut slots,
        };
        walk.message(0, payload)
            .map_err(|what| ExtractError::Protobuf(what.into()))?;
        self.extractor.record(slots)
    }
}

/// Walks the bytes and the plans side by side.
struct Walk<'w, 'a> {
    plans: &'a [Plan],
    slots: &'w mut Slots<'a>,
}

impl<'a> Walk<'_, 'a> {
    fn message(&mut self, plan: usize, bytes: &'a [u8]) -> Result<(), Bad> {
        let plans = self.plans;
        let plan = &plans[plan];
        for (slot, default) in &plan.defaults {
            // A message in several parts is one: what an earlier part said stands.
            if self.slots[*slot].is_none() {
                self.slots[*slot] = Some(match default {
                    Absent::False => Scalar::Bool(false),
                    Absent::Name(name) => Scalar::Text((&**name).into()),
                });
            }
        }
        let mut counts = vec![0; if plan.counts { plan.fields.len() } else { 0 }];
        let mut wire = Wire::new(bytes);
        while let Some((number, raw)) = wire.field()? {
            for (at, field) in plan
                .fields
                .iter()
                .enumerate()
                .filter(|(_, field)| field.number == number)
            {
                field.clears.iter().for_each(|slot| self.slots[*slot] = None);
                match &field.shape {
                    Shape::One(target) => self.put(*target, &field.kind, raw)?,
                    Shape::Many(slot, picked) => {
                        self.compound(*slot);
                        if !picked.is_empty() {
                            self.items(field, picked, (raw, &mut counts[at]))?;
                        }
                    }
                    Shape::Map(slot, picked, key) => {
                        self.compound(*slot);
                        self.entry((key, &field.kind), picked, raw)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn compound(&mut self, slot: Option<usize>) {
        if let Some(slot) = slot {
            self.slots[slot] = Some(Scalar::Compound);
        }
    }

    fn put(&mut self, target: Target, kind: &'a Value, raw: Raw<'a>) -> Result<(), Bad> {
        if let Some(slot) = target.slot {
            // A value written in another way than the schema says counts as unknown, as all readers have it.
            if let Some(scalar) = scalar(kind, raw)? {
                self.slots[slot] = Some(scalar);
            }
        }
        match (target.plan, raw) {
            (Some(plan), Raw::Bytes(bytes)) => self.message(plan, bytes),
            _ => Ok(()),
        }
    }

    /// Items of a repeated field: one, or many numbers packed into bytes.
    fn items(
        &mut self,
        field: &'a Field,
        picked: &[(usize, Target)],
        (raw, count): (Raw<'a>, &mut usize),
    ) -> Result<(), Bad> {
        let mut one = |walk: &mut Self, raw| {
            let here = picked
                .iter()
                .filter(|(wanted, _)| wanted == count)
                .map(|(_, target)| *target);
            for target in here {
                walk.put(target, &field.kind, raw)?;
            }
            *count += 1;
            Ok::<(), Bad>(())
        };
        match (raw, packed(&field.kind)) {
            (Raw::Bytes(bytes), Some(width)) => {
                let mut wire = Wire::new(bytes);
                while let Some(raw) = wire.packed(width)? {
                    one(self, raw)?;
                }
                Ok(())
            }
            (raw, _) => one(self, raw),
        }
    }

    fn entry(
        &mut self,
        (key_kind, kind): (&'a Value, &'a Value),
        picked: &[(String, Target)],
        raw: Raw<'a>,
    ) -> Result<(), Bad> {
        let Raw::Bytes(bytes) = raw else { return Ok(()) };
        let (mut key, mut value) = (None, None);
        let mut wire = Wire::new(bytes);
        while let Some((number, raw)) = wire.field()? {
            match number {
                1 => key = scalar(key_kind, raw)?,
                2 => value = Some(raw),
                _ => {}
            }
        }
        let key = key.as_ref().and_then(Scalar::text).unwrap_or_default();
        let Some(raw) = value else { return Ok(()) };
        for (_, target) in picked.iter().filter(|(wanted, _)| *wanted == *key) {
            self.put(*target, kind, raw)?;
        }
        Ok(())
    }
}

/// How numbers of a kind are packed: 0 for a varint, else bytes; `None` for what is never packed.
fn packed(kind: &Value) -> Option<usize> {
    match kind {
        Value::Double => Some(8),
        Value::Float => Some(4),
        Value::Fixed { bytes, .. } => Some(*bytes),
        Value::Signed | Value::Unsigned | Value::ZigZag | Value::Bool | Value::Enum(_) => Some(0),
        _ => None,
    }
}

/// The scalar that was written; `None` where it was not written as this kind is.
fn scalar<'a>(kind: &'a Value, raw: Raw<'a>) -> Result<Option<Scalar<'a>>, Bad> {
    Ok(Some(match (kind, raw) {
        (Value::Double, Raw::Eight(bytes)) => float(f64::from_le_bytes(bytes)),
        (Value::Float, Raw::Four(bytes)) => float(f32::from_le_bytes(bytes).into()),
        (Value::Signed, Raw::Varint(number)) => Scalar::Whole((number as i64).into()),
        (Value::Unsigned, Raw::Varint(number)) => Scalar::Whole(number.into()),
        (Value::ZigZag, Raw::Varint(number)) => Scalar::Whole(((number >> 1) as i64 ^ -((number & 1) as i64)).into()),
        (Value::Fixed { signed: true, bytes: 4 }, Raw::Four(bytes)) => Scalar::Whole(i32::from_le_bytes(bytes).into()),
        (
            Value::Fixed {
                signed: false,
                bytes: 4,
            },
            Raw::Four(bytes),
        ) => Scalar::Whole(u32::from_le_bytes(bytes).into()),
        (Value::Fixed { signed: true, bytes: 8 }, Raw::Eight(bytes)) => Scalar::Whole(i64::from_le_bytes(bytes).into()),
        (
            Value::Fixed {
                signed: false,
                bytes: 8,
            },
            Raw::Eight(bytes),
        ) => Scalar::Whole(u64::from_le_bytes(bytes).into()),
        (Value::Bool, Raw::Varint(number)) => Scalar::Bool(number != 0),
        (Value::Enum(names), Raw::Varint(number)) => match names.get(&(number as i32)) {
            Some(name) => Scalar::Text((&**name).into()),
            None => Scalar::Whole((number as i32).into()),
        },
        (Value::Text, Raw::Bytes(bytes)) => Scalar::Text(
            std::str::from_utf8(bytes)
                .map_err(|_| "a string that is not UTF-8")?
                .into(),
        ),
        (Value::Bytes, Raw::Bytes(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => Scalar::Text(text.into()),
            Err(_) => Scalar::Compound,
        },
        (Value::Timestamp, Raw::Bytes(bytes)) => timestamp(bytes)?,
        (Value::Wrapper(inner), Raw::Bytes(bytes)) => wrapped(inner, bytes)?,
        (Value::Message, Raw::Bytes(_)) => Scalar::Compound,
        _ => return Ok(None),
    }))
}

fn timestamp(bytes: &[u8]) -> Result<Scalar<'_>, Bad> {
    let (mut seconds, mut nanos) = (0_i64, 0_i64);
    let mut wire = Wire::new(bytes);
    while let Some((number, raw)) = wire.field()? {
        match (number, raw) {
            (1, Raw::Varint(number)) => seconds = number as i64,
            (2, Raw::Varint(number)) => nanos = i64::from(number as i32),
            _ => {}
        }
    }
    let micros = seconds
        .checked_mul(1_000_000)
        .and_then(|micros| micros.checked_add(nanos.div_euclid(1_000)));
    Ok(micros.map_or(Scalar::Whole(i64::MAX.into()), Scalar::Moment))
}

fn wrapped<'a>(inner: &'a Value, bytes: &'a [u8]) -> Result<Scalar<'a>, Bad> {
    let mut found = match inner {
        Value::Text | Value::Bytes => Scalar::Text("".into()),
        Value::Bool => Scalar::Bool(false),
        Value::Double | Value::Float => Scalar::Float(0.0),
        _ => Scalar::Whole(0),
    };
    let mut wire = Wire::new(bytes);
    while let Some((number, raw)) = wire.field()? {
        if number == 1
            && let Some(scalar) = scalar(inner, raw)?
        {
            found = scalar;
        }
    }
    Ok(found)
}
