//! GGUF files (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>), versions 2 and 3, little-endian:
//! metadata, and tensors in ggml's types, in one file or split over several.
//!
//! Arrays in the metadata stay in the mapped file until they are asked for.

mod read;
mod split;
mod write;

use super::{Bytes, Checkpoint, Format};
use crate::error::{Error, Result};
pub use split::Split;
use std::{collections::BTreeMap, fmt, ops::Range};
pub use write::{Made, Writer};

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any integer. A u64 beyond the range of i64 is read as the largest i64, which getters of counts and ids
    /// reject.
    Int(i64),
    Float(f64),
    Bool(bool),
    /// A text, with U+FFFD for what is not UTF-8.
    String(String),
    Array(Array),
}

impl Value {
    /// The beginning of what an error calls a value of another type than is wanted.
    fn kind(&self) -> &'static str {
        match self {
            Self::Int(_) | Self::Float(_) => "the number ",
            Self::String(_) => "the text ",
            Self::Bool(_) | Self::Array(_) => "",
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Int(n) => n.fmt(f),
            Self::Float(n) => n.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::String(text) => f.write_str(text),
            Self::Array(array) => write!(f, "an array of {}", array.len),
        }
    }
}

/// An array: the type and number of its elements, and the bytes of the file that hold them.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    kind: u32,
    len: u64,
    range: Range<usize>,
}

/// A metadata entry: its value, and the bytes of the file that hold its type and value.
struct Metadata {
    value: Value,
    range: Range<usize>,
}

/// A GGUF file, or the files of a split model as one.
pub struct Gguf {
    pub name: String,
    file: Bytes,
    metadata: BTreeMap<String, Metadata>,
    pub checkpoint: Checkpoint,
}

/// Numbers of metadata types, from the GGUF specification.
const UINT32: u32 = 4;
const INT32: u32 = 5;
const FLOAT32: u32 = 6;
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// ggml's tensor types: number, name, values in a block, bytes of a block.
const TYPES: [(u32, &str, u64, u64); 34] = [
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 36),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
];

/// The number of a format's ggml type.
fn number(format: Format) -> u32 {
    let of = |(_, name, ..): &&(u32, &str, u64, u64)| name.eq_ignore_ascii_case(format.name());
    TYPES.iter().find(of).expect("every format is a type of ggml's").0
}

impl Gguf {
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key).map(|entry| &entry.value)
    }

    /// An error that says what a metadata entry is, and why that is wrong.
    pub fn wrong(&self, key: &str, why: impl fmt::Display) -> Error {
        let is = self.get(key).map_or_else(|| "is missing".to_owned(), |value| format!("is {value}"));
        Error::model(format!("{}: {key} {is}, but {why}", self.name))
    }

    /// An error about an entry of another type than the one that belongs there.
    fn mistyped(&self, key: &str, wanted: impl fmt::Display) -> Error {
        let value = self.get(key).map_or_else(String::new, |value| format!("{}{value}", value.kind()));
        Error::model(format!("{}: {key} is {value}, but {wanted} belongs there", self.name))
    }

    /// A string entry; None if it is missing, an error if it has another type.
    pub fn string(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.mistyped(key, "a text")),
        }
    }
    /// A count from 1 to `most`. An array with one count per layer is accepted if all are the same.
    pub fn count(&self, key: &str, most: u32) -> Result<Option<u32>> {
        let wrong = || self.mistyped(key, format_args!("a whole number from 1 to {most}"));
        let count = match self.get(key) {
            None => return Ok(None),
            Some(Value::Int(n)) => *n as f64,
            Some(Value::Array(_)) => match self.numbers(key)?.unwrap_or_default()[..] {
                [first, ref others @ ..] if others.iter().all(|other| *other == first) => first,
                _ => return Err(self.wrong(key, "its layers must be alike")),
            },
            Some(_) => return Err(wrong()),
        };
        if !(1.0..=f64::from(most)).contains(&count) || count.fract() != 0.0 {
            return Err(wrong());
        }
        Ok(Some(count as u32))
    }
    /// A token id; None if the entry is missing or no id, such as -1. An error if it has another type.
    pub fn id(&self, key: &str) -> Result<Option<u32>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Int(n)) => Ok(u32::try_from(*n).ok()),
            Some(_) => Err(self.mistyped(key, "the number of a token")),
        }
    }
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Float(n)) if n.is_finite() => Ok(Some(*n)),
            Some(Value::Int(n)) => Ok(Some(*n as f64)),
            Some(_) => Err(self.mistyped(key, "a number")),
        }
    }
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(self.mistyped(key, "true or false")),
        }
    }

    /// Every entry: its key, and the bytes of its type and value as in the file.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.metadata.iter().map(|(key, entry)| (key.as_str(), &self.file.as_slice()[entry.range.clone()]))
    }

    /// An array entry whose elements are of a type that fits; `wanted` names them.
    fn array(&self, key: &str, fits: impl Fn(u32) -> bool, wanted: &str) -> Result<Option<&Array>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) if fits(array.kind) => Ok(Some(array)),
            Some(_) => Err(self.mistyped(key, format_args!("an array of {wanted}"))),
        }
    }
}
