//! What a schema registry's serializers put before a payload: a zero, the schema's number in four bytes, and for
//! Protobuf which message of the schema it is.

use crate::extract::Wire;

/// Messages within messages.
const MAX_PATH: usize = 16;

/// A payload without its header.
#[derive(Debug, PartialEq)]
pub struct Framed<'a> {
    /// The schema's number in the registry.
    pub schema: u32,
    /// What follows.
    pub datum: &'a [u8],
}

/// Which message of a schema: its number among the messages, then among those within it, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessagePath {
    steps: [u32; MAX_PATH],
    length: usize,
}

impl MessagePath {
    /// The numbers.
    pub fn steps(&self) -> &[u32] {
        &self.steps[..self.length]
    }
}

/// Takes the header off.
///
/// # Errors
/// In words: there is none.
pub fn split(payload: &[u8]) -> Result<Framed<'_>, &'static str> {
    match payload {
        [0, a, b, c, d, datum @ ..] => Ok(Framed {
            schema: u32::from_be_bytes([*a, *b, *c, *d]),
            datum,
        }),
        [0, ..] => Err("it is shorter than the header of a registry's payload"),
        _ => Err("it does not begin with the zero of a registry's payload"),
    }
}

/// Takes off, after the header, which message a Protobuf payload is.
///
/// # Errors
/// In words: it does not say.
pub fn message(datum: &[u8]) -> Result<(MessagePath, &[u8]), &'static str> {
    let mut wire = Wire::new(datum);
    let mut number = || wire.varint().map(|n| (n >> 1) as i64 ^ -((n & 1) as i64));
    let mut path = MessagePath {
        steps: [0; MAX_PATH],
        length: 1,
    };
    // None at all stands for the first message, which is what most are.
    let length = number()?;
    if length != 0 {
        path.length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= MAX_PATH)
            .ok_or(NO_PATH)?;
        for step in &mut path.steps[..path.length] {
            *step = u32::try_from(number()?).map_err(|_| NO_PATH)?;
        }
    }
    Ok((path, wire.rest()))
}

const NO_PATH: &str = "it does not say which message it is";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_taken_off() {
        assert_eq!(
            split(&[0, 0, 0, 1, 2, 9]),
            Ok(Framed {
                schema: 258,
                datum: &[9]
            })
        );
        assert_eq!(split(&[0, 255, 255, 255, 255]).unwrap().schema, u32::MAX);
        for wrong in [&b""[..], b"{", &[0, 0, 0, 1], &[1, 0, 0, 0, 1]] {
            assert!(split(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_message_of_a_schema_is_told() {
        let steps = |datum: &[u8]| message(datum).map(|(path, rest)| (path.steps().to_vec(), rest.to_vec()));
        assert_eq!(steps(&[0, 7]), Ok((vec![0], vec![7])));
        assert_eq!(steps(&[2, 2, 7]), Ok((vec![1], vec![7])));
        assert_eq!(steps(&[4, 2, 0]), Ok((vec![1, 0], vec![])));
        for wrong in [&[][..], &[2], &[1], &[2, 1], &[0x80], &[200, 1], &[0xff; 12]] {
            assert!(steps(wrong).is_err(), "{wrong:?}");
        }
    }
}
