//! Writing GGUF, version 3: the metadata first, then one tensor after the other, each produced as it is
//! written.

use super::{ARRAY, BOOL, FLOAT32, INT32, STRING, UINT32, number};
use crate::{
    buffers::Contents,
    error::{Error, Result},
    weights::Format,
};
use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
    sync::Arc,
};

const ALIGNMENT: usize = 32;
/// About how many bytes of a tensor are produced at a time.
const CHUNK: usize = 8 << 20;

/// A tensor to be written. Packed: no padding between rows.
pub struct Made {
    /// `[rows, columns]`, or `[length]`.
    pub shape: Vec<usize>,
    pub format: Format,
    pub contents: Arc<dyn Contents>,
}

impl Made {
    fn bytes(&self) -> usize {
        self.contents.rows() * self.contents.row_bytes()
    }
}

/// Collects the entries and tensors of a GGUF file, then writes it.
#[derive(Default)]
pub struct Writer {
    metadata: Vec<u8>,
    entries: u64,
    tensors: Vec<(String, Made)>,
}

/// Appends a string as GGUF stores it: its length, then its bytes.
fn put_text(to: &mut Vec<u8>, text: &str) {
    to.extend((text.len() as u64).to_le_bytes());
    to.extend(text.as_bytes());
}

impl Writer {
    /// Adds an entry; `entry` holds its type and value as they are in a file.
    pub fn copy(&mut self, key: &str, entry: &[u8]) {
        put_text(&mut self.metadata, key);
        self.metadata.extend(entry);
        self.entries += 1;
    }
    fn entry(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.copy(key, &[&kind.to_le_bytes(), value].concat());
    }
    fn array(&mut self, key: &str, kind: u32, len: usize, values: &[u8]) {
        self.entry(key, ARRAY, &[&kind.to_le_bytes(), &(len as u64).to_le_bytes()[..], values].concat());
    }

    pub fn text(&mut self, key: &str, text: &str) {
        let mut value = Vec::new();
        put_text(&mut value, text);
        self.entry(key, STRING, &value);
    }
    pub fn count(&mut self, key: &str, value: u32) {
        self.entry(key, UINT32, &value.to_le_bytes());
    }
    pub fn number(&mut self, key: &str, value: f32) {
        self.entry(key, FLOAT32, &value.to_le_bytes());
    }
    pub fn bool(&mut self, key: &str, value: bool) {
        self.entry(key, BOOL, &[u8::from(value)]);
    }
    pub fn texts(&mut self, key: &str, texts: &[String]) {
        let mut values = Vec::new();
        texts.iter().for_each(|text| put_text(&mut values, text));
        self.array(key, STRING, texts.len(), &values);
    }
    pub fn counts(&mut self, key: &str, values: &[i32]) {
        self.array(key, INT32, values.len(), bytemuck::cast_slice(values));
    }
    pub fn numbers(&mut self, key: &str, values: &[f32]) {
        self.array(key, FLOAT32, values.len(), bytemuck::cast_slice(values));
    }
    pub fn tensor(&mut self, name: impl Into<String>, tensor: Made) {
        self.tensors.push((name.into(), tensor));
    }

    /// The bytes of the file before the first tensor's data.
    pub fn header(&self) -> Vec<u8> {
        let mut header = b"GGUF\x03\0\0\0".to_vec();
        header.extend((self.tensors.len() as u64).to_le_bytes());
        header.extend(self.entries.to_le_bytes());
        header.extend(&self.metadata);
        let mut offset = 0;
        for (name, tensor) in &self.tensors {
            put_text(&mut header, name);
            header.extend((tensor.shape.len() as u32).to_le_bytes());
            // In ggml's order: the innermost dimension, the columns, first.
            tensor.shape.iter().rev().for_each(|n| header.extend((*n as u64).to_le_bytes()));
            header.extend(number(tensor.format).to_le_bytes());
            header.extend((offset as u64).to_le_bytes());
            offset += tensor.bytes().next_multiple_of(ALIGNMENT);
        }
        header.resize(header.len().next_multiple_of(ALIGNMENT), 0);
        header
    }

    /// Writes the file to `out`. After each chunk calls `progress` with the bytes of the chunk and the bytes
    /// of all tensors.
    ///
    /// # Errors
    /// Of the kind `Interrupted` if `progress` returns false; else those of `out`.
    pub fn write(&self, out: &mut impl Write, progress: &dyn Fn(u64, u64) -> bool) -> io::Result<()> {
        out.write_all(&self.header())?;
        let total = self.tensors.iter().map(|(_, tensor)| tensor.bytes() as u64).sum();
        let mut chunk = Vec::new();
        for (_, tensor) in &self.tensors {
            let (rows, row_bytes) = (tensor.contents.rows(), tensor.contents.row_bytes());
            let at_once = (CHUNK / row_bytes.max(1)).max(1);
            for first in (0..rows).step_by(at_once) {
                chunk.resize(at_once.min(rows - first) * row_bytes, 0);
                tensor.contents.fill(first, &mut chunk);
                out.write_all(&chunk)?;
                if !progress(chunk.len() as u64, total) {
                    return Err(io::ErrorKind::Interrupted.into());
                }
            }
            let gap = tensor.bytes().next_multiple_of(ALIGNMENT) - tensor.bytes();
            out.write_all(&[0; ALIGNMENT][..gap])?;
        }
        out.flush()
    }

    /// Writes the file to `path`, under the name `path`.part until it is complete; calls `progress` as
    /// [`Writer::write`] does.
    ///
    /// # Errors
    /// Of the kind Run if the file cannot be written or `progress` returns false; the partial file is then
    /// removed.
    pub fn save(&self, path: &Path, progress: &dyn Fn(u64, u64) -> bool) -> Result<()> {
        // A link stays, and the file that it leads to is replaced.
        let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if path.exists() && !path.is_file() {
            return Err(Error::run(format!(
                "{} cannot be written: it is there, and is not a file; name another",
                path.display()
            )));
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".part");
        let written = File::create(&partial)
            .and_then(|file| self.write(&mut BufWriter::new(file), progress))
            .and_then(|()| fs::rename(&partial, path));
        written.map_err(|e| {
            let _ = fs::remove_file(&partial);
            Error::run(format!("{} cannot be written: {e}", path.display())).because(e)
        })
    }
}
