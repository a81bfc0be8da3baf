//! Protobuf's wire format: numbered fields, each a number or a run of bytes.
//!
//! Architecture Invariant: bytes are hostile. Every step takes at least one of them, and what is passed over is bounded by
//! them.

/// What is wrong with bytes.
pub(crate) type Bad = &'static str;

const SHORT: Bad = "the message ends too early";
/// Groups within groups, an old form that is only passed over.
const MAX_GROUPS: usize = 64;

/// A value as it stands there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Raw<'a> {
    Varint(u64),
    Four([u8; 4]),
    Eight([u8; 8]),
    Bytes(&'a [u8]),
    /// Passed over.
    Group,
}

/// Bytes, read from the front.
pub(crate) struct Wire<'a> {
    rest: &'a [u8],
}

impl<'a> Wire<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Wire { rest: bytes }
    }

    /// What has not been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next field's number and value; `None` at the end.
    pub(super) fn field(&mut self) -> Result<Option<(u32, Raw<'a>)>, Bad> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, form) = self.tag()?;
        let raw = match form {
            3 => self.group(number)?,
            4 => return Err("the end of a group that was not begun"),
            form => self.value(form)?,
        };
        Ok(Some((number, raw)))
    }

    /// The next of packed numbers of so many bytes, 0 for varints; `None` at the end.
    pub(super) fn packed(&mut self, width: usize) -> Result<Option<Raw<'a>>, Bad> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let form = match width {
            0 => 0,
            8 => 1,
            _ => 5,
        };
        self.value(form).map(Some)
    }

    fn tag(&mut self) -> Result<(u32, u8), Bad> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3)
            .ok()
            .filter(|number| (1..1 << 29).contains(number));
        Ok((number.ok_or("a field number that cannot be")?, (tag & 7) as u8))
    }

    fn value(&mut self, form: u8) -> Result<Raw<'a>, Bad> {
        match form {
            0 => Ok(Raw::Varint(self.varint()?)),
            1 => Ok(Raw::Eight(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| SHORT)?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or(SHORT)?;
                self.rest = rest;
                Ok(Raw::Bytes(bytes))
            }
            5 => Ok(Raw::Four(self.array()?)),
            _ => Err("a wire type that does not exist"),
        }
    }

    /// Passes over a group and those in it.
    fn group(&mut self, number: u32) -> Result<Raw<'a>, Bad> {
        let mut open = vec![number];
        while let Some(innermost) = open.last() {
            match self.tag()? {
                (number, 3) => {
                    open.push(number);
                    if open.len() > MAX_GROUPS {
                        return Err("groups are nested too deeply");
                    }
                }
                (number, 4) if number == *innermost => drop(open.pop()),
                (_, 4) => return Err("the end of another group"),
                (_, form) => drop(self.value(form)?),
            }
        }
        Ok(Raw::Group)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(SHORT)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Seven bits a byte, the lowest first.
    pub(crate) fn varint(&mut self) -> Result<u64, Bad> {
        let mut number = 0_u64;
        for (at, byte) in self.rest.iter().enumerate().take(10) {
            number |= u64::from(byte & 0x7f) << (at * 7);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Ok(number);
            }
        }
        Err(if self.rest.len() < 10 {
            SHORT
        } else {
            "a number that is too long"
        })
    }
}
