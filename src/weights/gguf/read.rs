//! Reading GGUF. The header is not trusted: counts are checked against fixed maxima, lengths against what is
//! left of the file, tensors against the end of the file and each other.

use super::{ARRAY, Array, BOOL, Gguf, Metadata, STRING, TYPES, Value};
use crate::{
    error::{Error, Result},
    weights::{Bytes, Checkpoint, Entry, Format, Tensor},
};
use std::{borrow::Cow, collections::BTreeMap, path::Path};

/// The most tensors, and the most metadata entries: more than any model has, and few enough that a false
/// claim costs little memory.
const MAX_ENTRIES: u64 = 65_536;
const MAX_KEY_BYTES: u64 = 1024;
/// The most bytes in a text: some files hold a whole tokenizer.json as one.
const MAX_TEXT_BYTES: u64 = 64 << 20;

/// A file that is being read, and the position in it.
struct Cursor<'a> {
    name: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn damaged(&self, what: impl std::fmt::Display) -> Error {
        Error::model(format!("{} is damaged: {what}, at byte {}; download it again", self.name, self.at))
    }
    fn take(&mut self, len: u64) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let len = usize::try_from(len).ok().filter(|len| *len <= rest.len());
        let len = len.ok_or_else(|| self.damaged("it ends in the middle of its header"))?;
        self.at += len;
        Ok(&rest[..len])
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N as u64)?.try_into().expect("as many as were taken"))
    }
    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    /// A count of at most `most`; a larger one means that the file is damaged. `what` names what is counted.
    fn count(&mut self, what: &str, most: u64) -> Result<u64> {
        let count = self.u64()?;
        if count > most {
            return Err(self.damaged(format_args!("it claims {count} {what}")));
        }
        Ok(count)
    }
    /// The bytes of a text, which need not be UTF-8.
    fn text(&mut self, most: u64) -> Result<&'a [u8]> {
        let len = self.u64()?;
        if len > most {
            return Err(self.damaged(format_args!("a name or text claims {len} bytes")));
        }
        self.take(len)
    }
    fn name(&mut self) -> Result<Cow<'a, str>> {
        self.text(MAX_KEY_BYTES).map(String::from_utf8_lossy)
    }

    /// A scalar of a metadata type.
    fn value(&mut self, kind: u32) -> Result<Value> {
        Ok(match kind {
            0 => Value::Int(i64::from(self.array::<1>()?[0])),
            1 => Value::Int(i64::from(i8::from_le_bytes(self.array()?))),
            2 => Value::Int(i64::from(u16::from_le_bytes(self.array()?))),
            3 => Value::Int(i64::from(i16::from_le_bytes(self.array()?))),
            4 => Value::Int(i64::from(self.u32()?)),
            5 => Value::Int(i64::from(i32::from_le_bytes(self.array()?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.array()?))),
            7 => Value::Bool(self.array::<1>()?[0] != 0),
            STRING => Value::String(String::from_utf8_lossy(self.text(MAX_TEXT_BYTES)?).into_owned()),
            10 => Value::Int(i64::try_from(self.u64()?).unwrap_or(i64::MAX)),
            11 => Value::Int(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            _ => return Err(self.damaged(format_args!("a metadata value has the unknown type {kind}"))),
        })
    }

    /// Bytes of a value of a metadata type, if all its values have the same size.
    fn value_bytes(kind: u32) -> Option<u64> {
        match kind {
            0 | 1 | 7 => Some(1),
            2 | 3 => Some(2),
            4..=6 => Some(4),
            10..=12 => Some(8),
            _ => None,
        }
    }

    /// Skips an array, checking that all of it is in the file.
    fn skip_array(&mut self) -> Result<Array> {
        let (kind, len) = (self.u32()?, self.u64()?);
        let start = self.at;
        match Self::value_bytes(kind) {
            Some(bytes) => {
                let all = len.checked_mul(bytes).ok_or_else(|| self.damaged("an array is too long"))?;
                self.take(all)?;
            }
            None if kind == STRING => {
                for _ in 0..len {
                    let bytes = self.u64()?;
                    self.take(bytes)?;
                }
            }
            None => {
                let name = self.name;
                return Err(Error::model(format!(
                    "{name} holds a list of values of the type {kind}, which is not read, at byte {start}"
                )));
            }
        }
        Ok(Array { kind, len, range: start..self.at })
    }
}

impl Gguf {
    /// Maps a file and reads its header.
    pub(super) fn map(path: &Path) -> Result<Self> {
        Self::read(&path.display().to_string(), Bytes::map(path)?)
    }

    /// Reads a file's header.
    pub fn read(name: &str, file: Bytes) -> Result<Self> {
        let mut cursor = Cursor { name, bytes: file.as_slice(), at: 0 };
        if cursor.bytes.len() < 24 || cursor.array()? != *b"GGUF" {
            return Err(Error::model(format!(
                "{name} is not a GGUF file: it does not begin with GGUF and a header"
            )));
        }
        match cursor.u32()? {
            2 | 3 => (),
            version if version.swap_bytes() <= 3 => {
                return Err(Error::model(format!(
                    "{name} is a big-endian GGUF file: a little-endian one is needed"
                )));
            }
            version => {
                return Err(Error::model(format!(
                    "{name} is GGUF version {version}: versions 2 and 3 are read"
                )));
            }
        }
        let tensors = cursor.count("tensors", MAX_ENTRIES)?;
        let entries = cursor.count("metadata entries", MAX_ENTRIES)?;
        let mut metadata = BTreeMap::new();
        for _ in 0..entries {
            let key = cursor.name()?.into_owned();
            let start = cursor.at;
            let value = match cursor.u32()? {
                ARRAY => Value::Array(cursor.skip_array()?),
                kind => cursor.value(kind)?,
            };
            if metadata.contains_key(&key) {
                return Err(cursor.damaged(format_args!("{key} stands there twice")));
            }
            metadata.insert(key, Metadata { value, range: start..cursor.at });
        }
        let mut infos = Vec::new();
        for _ in 0..tensors {
            infos.push(cursor.tensor()?);
        }
        let alignment = match metadata.get("general.alignment").map(|entry| &entry.value) {
            None => 32,
            Some(Value::Int(n)) if *n > 0 && *n <= 1 << 20 && (*n as u64).is_power_of_two() => *n as u64,
            Some(_) => return Err(cursor.damaged("general.alignment is no power of two")),
        };
        let start = (cursor.at as u64).next_multiple_of(alignment);
        let checkpoint = place(&cursor, infos, start, alignment, &file)?;
        Ok(Self { name: name.to_owned(), file, metadata, checkpoint })
    }

    /// The bytes of each text of an array entry; None if it is missing.
    ///
    /// # Errors
    /// Of the kind Model if the entry is no array of texts.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&[u8]>>> {
        let Some(array) = self.array(key, |kind| kind == STRING, "texts")? else { return Ok(None) };
        let bytes = &self.file.as_slice()[..array.range.end];
        let mut cursor = Cursor { name: &self.name, bytes, at: array.range.start };
        (0..array.len).map(|_| cursor.text(MAX_TEXT_BYTES)).collect::<Result<_>>().map(Some)
    }
    /// The texts of an array entry, with U+FFFD for what is not UTF-8; None if it is missing.
    ///
    /// # Errors
    /// As for [`Gguf::texts`].
    pub fn strings(&self, key: &str) -> Result<Option<Vec<Cow<'_, str>>>> {
        let texts = self.texts(key)?;
        Ok(texts.map(|all| all.into_iter().map(String::from_utf8_lossy).collect()))
    }
    /// The numbers of an array entry, as f64; None if it is missing.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        let is_number = |kind| kind != STRING && kind != BOOL;
        let Some(array) = self.array(key, is_number, "numbers")? else { return Ok(None) };
        let number = |value| match value {
            Ok(Value::Int(n)) => Ok(n as f64),
            Ok(Value::Float(n)) => Ok(n),
            Ok(_) => unreachable!("only numbers were let in"),
            Err(e) => Err(e),
        };
        self.elements(array).map(number).collect::<Result<_>>().map(Some)
    }
    /// The elements of an array, of whatever type they are.
    pub fn elements(&self, array: &Array) -> impl Iterator<Item = Result<Value>> {
        let bytes = &self.file.as_slice()[..array.range.end];
        let mut cursor = Cursor { name: &self.name, bytes, at: array.range.start };
        let kind = array.kind;
        (0..array.len).map(move |_| cursor.value(kind))
    }
}

/// A tensor as the header describes it.
struct Info<'a> {
    name: Cow<'a, str>,
    /// In ggml's order: the innermost dimension, the columns, first.
    dimensions: Vec<u64>,
    kind: (u32, &'static str, u64, u64),
    offset: u64,
}

impl Info<'_> {
    /// Bytes of the tensor; None if its rows are not whole blocks or the number overflows.
    fn bytes(&self) -> Option<u64> {
        let (_, _, values, bytes) = self.kind;
        let all = self.dimensions.iter().try_fold(1u64, |all, n| all.checked_mul(*n))?;
        let columns = self.dimensions.first().copied().unwrap_or(1);
        (columns.is_multiple_of(values)).then_some(all / values).and_then(|blocks| blocks.checked_mul(bytes))
    }
}

impl<'a> Cursor<'a> {
    fn tensor(&mut self) -> Result<Info<'a>> {
        let name = self.name()?;
        let n_dimensions = self.u32()?;
        if n_dimensions > 4 {
            return Err(self.damaged(format_args!("the tensor {name} claims {n_dimensions} dimensions")));
        }
        let dimensions = (0..n_dimensions).map(|_| self.u64()).collect::<Result<Vec<_>>>()?;
        let number = self.u32()?;
        let kind = TYPES.iter().find(|(n, ..)| *n == number).copied();
        let kind = kind
            .ok_or_else(|| self.damaged(format_args!("the tensor {name} has the unknown type {number}")))?;
        Ok(Info { name, dimensions, kind, offset: self.u64()? })
    }
}

/// Checks that the tensors lie within the file, aligned and without overlap, and collects them into a
/// checkpoint. `start` is where the tensor data starts.
fn place(
    cursor: &Cursor,
    mut infos: Vec<Info>,
    start: u64,
    alignment: u64,
    file: &Bytes,
) -> Result<Checkpoint> {
    let mut checkpoint = Checkpoint::default();
    infos.sort_by_key(|info| info.offset);
    let mut end = start;
    for info in infos {
        let (_, kind, values, _) = info.kind;
        let damaged = |what: &str| cursor.damaged(format_args!("the tensor {} {what}", info.name));
        let Some(bytes) = info.bytes() else {
            return Err(damaged(&format!("of {:?} values has no whole blocks of {values}", info.dimensions)));
        };
        let from = start.checked_add(info.offset).filter(|_| info.offset.is_multiple_of(alignment));
        let from = from.ok_or_else(|| damaged("lies at an offset that is not aligned"))?;
        if from < end {
            return Err(damaged("overlaps another"));
        }
        end = from.checked_add(bytes).ok_or_else(|| damaged("ends beyond all bounds"))?;
        if end > cursor.bytes.len() as u64 {
            return Err(damaged("runs past the end of the file"));
        }
        // Further dimensions of 1 say nothing: some programs write four for every tensor.
        let ones = info.dimensions.iter().skip(2).rev().take_while(|n| **n == 1).count();
        let shape: Vec<usize> = info.dimensions.iter().rev().skip(ones).map(|n| *n as usize).collect();
        let format = Format::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(kind));
        let range = from as usize..end as usize;
        let tensor = format.map(|format| Tensor::new(&info.name, format, shape.clone(), file.clone(), range));
        let entry = Entry { dtype: kind.to_owned(), shape, bytes: bytes as usize, tensor };
        if !checkpoint.insert(&info.name, entry) {
            return Err(damaged("stands there twice"));
        }
    }
    Ok(checkpoint)
}
