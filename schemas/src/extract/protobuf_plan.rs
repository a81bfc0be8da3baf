//! A Protobuf descriptor and a mapping's tree, compiled together into the plans of [`super::ProtobufReader`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::tree::Node;

/// What to keep of a message.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) fields: Vec<Field>,
    /// What stands in a slot where the message is there and the field is not on the wire.
    pub(super) defaults: Vec<(usize, Absent)>,
    /// Whether items of repeated fields are counted.
    pub(super) counts: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Absent {
    False,
    Name(Arc<str>),
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) kind: Value,
    pub(super) shape: Shape,
    /// Slots of the other members of its `oneof`.
    pub(super) clears: Vec<usize>,
}

#[derive(Debug)]
pub(super) enum Shape {
    One(Target),
    /// The field itself, and items by their number.
    Many(Option<usize>, Vec<(usize, Target)>),
    /// The field itself, and values by their key; how the key is written.
    Map(Option<usize>, Vec<(String, Target)>, Value),
}

/// Where a value goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) slot: Option<usize>,
    /// The plan of a message.
    pub(super) plan: Option<usize>,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Double,
    Float,
    Signed,
    Unsigned,
    ZigZag,
    Fixed {
        signed: bool,
        bytes: usize,
    },
    Bool,
    Text,
    Bytes,
    Enum(Arc<BTreeMap<i32, Arc<str>>>),
    Timestamp,
    /// What is wrapped, and what it is when nothing is written.
    Wrapper(Box<Value>),
    Message,
}

/// Compiles the plans of a message and of those in it; the first is that of the message.
pub(super) fn compile(nodes: &[Node], message: &MessageDescriptor) -> Vec<Plan> {
    let mut compiler = Compiler {
        nodes,
        plans: Vec::new(),
    };
    compiler.plan(message, 0);
    compiler.plans
}

/// Puts descriptors and the mapping's tree together. The tree is finite, so messages that contain themselves are too.
struct Compiler<'e> {
    nodes: &'e [Node],
    plans: Vec<Plan>,
}

impl Compiler<'_> {
    fn plan(&mut self, message: &MessageDescriptor, node: usize) -> usize {
        let index = self.plans.len();
        self.plans.push(Plan::default());
        let mut plan = Plan::default();
        let mut members: HashMap<String, Vec<(u32, usize, Vec<usize>)>> = HashMap::new();
        let nodes = self.nodes;
        for (name, child) in &nodes[node].children {
            let field = message
                .get_field_by_name(name)
                .or_else(|| message.get_field_by_json_name(name));
            let Some(field) = field else { continue };
            if let Some(oneof) = field.containing_oneof() {
                let member = (field.number(), plan.fields.len(), below(nodes, *child));
                members.entry(oneof.name().to_owned()).or_default().push(member);
            }
            let slot = nodes[*child].slot;
            let kind = kind(&field);
            if let (Some(slot), false, false) = (slot, field.supports_presence(), field.is_list() || field.is_map()) {
                plan.defaults.extend(default(&kind).map(|default| (slot, default)));
            }
            plan.fields.push(self.field(&field, kind, *child));
        }
        for group in members.into_values() {
            for (number, at, _) in &group {
                // Not itself under its other name.
                let others = group.iter().filter(|(other, ..)| other != number);
                plan.fields[*at].clears = others.flat_map(|(_, _, slots)| slots.clone()).collect();
            }
        }
        plan.counts = plan
            .fields
            .iter()
            .any(|field| matches!(&field.shape, Shape::Many(_, picked) if !picked.is_empty()));
        self.plans[index] = plan;
        index
    }

    fn field(&mut self, field: &FieldDescriptor, kind: Value, node: usize) -> Field {
        let nodes = self.nodes;
        let Node { slot, children } = &nodes[node];
        let shape = if field.is_map() {
            let Kind::Message(entry) = field.kind() else {
                return Field::empty(field.number());
            };
            let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
            let picked = children
                .iter()
                .map(|(key, child)| (key.clone(), self.target(&value, *child)))
                .collect();
            return Field {
                number: field.number(),
                kind: self::kind(&value),
                shape: Shape::Map(*slot, picked, self::kind(&key)),
                clears: Vec::new(),
            };
        } else if field.is_list() {
            let picked = children
                .iter()
                .filter_map(|(step, child)| Some((step.parse().ok()?, *child)));
            let picked: Vec<(usize, usize)> = picked.collect();
            let picked = picked
                .into_iter()
                .map(|(at, child)| (at, self.target(field, child)))
                .collect();
            Shape::Many(*slot, picked)
        } else {
            Shape::One(self.target(field, node))
        };
        Field {
            number: field.number(),
            kind,
            shape,
            clears: Vec::new(),
        }
    }

    fn target(&mut self, field: &FieldDescriptor, node: usize) -> Target {
        let plan = match field.kind() {
            Kind::Message(message) if !self.nodes[node].children.is_empty() => Some(self.plan(&message, node)),
            _ => None,
        };
        Target {
            slot: self.nodes[node].slot,
            plan,
        }
    }
}

impl Field {
    /// A field of which nothing is kept.
    fn empty(number: u32) -> Self {
        Field {
            number,
            kind: Value::Message,
            shape: Shape::Many(None, Vec::new()),
            clears: Vec::new(),
        }
    }
}

/// Every slot at a node and below it.
fn below(nodes: &[Node], node: usize) -> Vec<usize> {
    let Node { slot, children } = &nodes[node];
    slot.iter()
        .copied()
        .chain(children.iter().flat_map(|(_, child)| below(nodes, *child)))
        .collect()
}

fn kind(field: &FieldDescriptor) -> Value {
    let fixed = |signed, bytes| Value::Fixed { signed, bytes };
    match field.kind() {
        Kind::Double => Value::Double,
        Kind::Float => Value::Float,
        Kind::Int32 | Kind::Int64 => Value::Signed,
        Kind::Uint32 | Kind::Uint64 => Value::Unsigned,
        Kind::Sint32 | Kind::Sint64 => Value::ZigZag,
        Kind::Fixed32 => fixed(false, 4),
        Kind::Fixed64 => fixed(false, 8),
        Kind::Sfixed32 => fixed(true, 4),
        Kind::Sfixed64 => fixed(true, 8),
        Kind::Bool => Value::Bool,
        Kind::String => Value::Text,
        Kind::Bytes => Value::Bytes,
        Kind::Enum(values) => {
            let mut names = BTreeMap::new();
            for value in values.values() {
                // Of names for one number the first is the one that is written.
                names.entry(value.number()).or_insert_with(|| value.name().into());
            }
            Value::Enum(Arc::new(names))
        }
        Kind::Message(_) if field.is_group() => Value::Message,
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Timestamp" => Value::Timestamp,
            name if name.starts_with("google.protobuf.")
                && name.ends_with("Value")
                && name != "google.protobuf.Value" =>
            {
                match message.get_field_by_name("value") {
                    Some(value) if message.fields().len() == 1 && !value.is_list() => {
                        Value::Wrapper(Box::new(self::kind(&value)))
                    }
                    _ => Value::Message,
                }
            }
            _ => Value::Message,
        },
    }
}

fn default(kind: &Value) -> Option<Absent> {
    match kind {
        Value::Bool => Some(Absent::False),
        Value::Enum(names) => names.get(&0).cloned().map(Absent::Name),
        _ => None,
    }
}
