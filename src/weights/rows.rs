//! Rows of a matrix in a checkpoint, and their conversion: transposed, reordered, requantised, padded.
use crate::buffers::Contents;

use super::{Format, Tensor, planes};
use rayon::prelude::*;
use std::ops::Range;

/// The order of a tensor's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    AsStored,
    /// Stored in Hugging Face's order for LLaMA, where rotary embeddings pair row i of the first half of a
    /// head with row i of the second; the number is the rows in a head. We put the rows of a pair side by
    /// side, as in GGUF. q·k stays the same.
    RopePairs(u32),
}

impl Order {
    /// The stored row that becomes row `row` of the matrix.
    pub fn stored(self, row: u32) -> u32 {
        match self {
            Self::AsStored => row,
            Self::RopePairs(head_dim) => {
                let i = row % head_dim;
                row - i + i / 2 + i % 2 * (head_dim / 2)
            }
        }
    }
}

/// Consecutive rows of a matrix that come from one tensor.
#[derive(Clone)]
struct Segment {
    tensor: Tensor,
    /// The format that the rows are converted to.
    format: Format,
    /// Whether the tensor is stored transposed, as `[columns, rows]` (GPT-2's Conv1D).
    transposed: bool,
    order: Order,
    /// Which of the tensor's rows, counted in the order of the matrix.
    rows: Range<u32>,
}

/// Rows that are converted at a time. From a transposed tensor, this many adjacent values are read at once
/// instead of a single one.
const STRIP: usize = 64;

impl Segment {
    fn columns(&self) -> usize {
        self.tensor.shape[if self.transposed { 0 } else { 1 }]
    }

    /// Writes rows to `out`, `row_bytes` apart, from row `first` of the tensor on, in the segment's format.
    fn fill(&self, first: u32, out: &mut [u8], row_bytes: usize) {
        if self.format == self.tensor.format {
            return self.copy(first, out, row_bytes);
        }
        let (stored, columns) = (self.tensor.format, self.columns());
        let (stored_bytes, packed_bytes) = (stored.row_bytes(columns), self.format.row_bytes(columns));
        out.par_chunks_mut(row_bytes * STRIP).enumerate().for_each(|(strip, out)| {
            let mut rows = vec![0; out.len() / row_bytes * stored_bytes];
            self.copy(first + (strip * STRIP) as u32, &mut rows, stored_bytes);
            let mut values = vec![0.0; columns];
            for (row, out) in rows.chunks(stored_bytes).zip(out.chunks_mut(row_bytes)) {
                stored.unpack(row, &mut values);
                self.format.pack(&values, &mut out[..packed_bytes]);
                out[packed_bytes..].fill(0);
            }
        });
    }

    /// Like `fill`, but in the tensor's own format.
    fn copy(&self, first: u32, out: &mut [u8], row_bytes: usize) {
        match self.tensor.format {
            Format::F32 => self.copy_values::<4>(first, out, row_bytes),
            Format::F16 | Format::BF16 => self.copy_values::<2>(first, out, row_bytes),
            _ => self.copy_blocks(first, out, row_bytes),
        }
    }

    /// `copy` for block formats, which are never transposed.
    fn copy_blocks(&self, first: u32, out: &mut [u8], row_bytes: usize) {
        assert!(!self.transposed, "{}: blocks along the columns", self.tensor.name);
        let stored_bytes = self.tensor.format.row_bytes(self.tensor.shape[1]);
        for (row, out) in (first..).zip(out.chunks_mut(row_bytes)) {
            let at = self.order.stored(row) as usize * stored_bytes;
            out[..stored_bytes].copy_from_slice(&self.tensor.bytes()[at..][..stored_bytes]);
            out[stored_bytes..].fill(0);
        }
    }

    /// `copy` for formats without blocks, whose values have `BYTES` bytes.
    fn copy_values<const BYTES: usize>(&self, first: u32, out: &mut [u8], row_bytes: usize) {
        let [a, b] = self.tensor.shape[..] else { panic!("{}: a matrix", self.tensor.name) };
        let (rows, columns) = if self.transposed { (b, a) } else { (a, b) };
        let stored = self.tensor.bytes();
        if !self.transposed {
            for (row, out) in (first..).zip(out.chunks_mut(row_bytes)) {
                let at = self.order.stored(row) as usize * columns * BYTES;
                out[..columns * BYTES].copy_from_slice(&stored[at..][..columns * BYTES]);
                out[columns * BYTES..].fill(0);
            }
            return;
        }
        let stored = stored.as_chunks::<BYTES>().0;
        out.par_chunks_mut(row_bytes * STRIP).enumerate().for_each(|(strip, out)| {
            let first = first + (strip * STRIP) as u32;
            out.chunks_mut(row_bytes).for_each(|out| out[columns * BYTES..].fill(0));
            for column in 0..columns {
                for (row, out) in (first..).zip(out.chunks_mut(row_bytes)) {
                    let value = stored[column * rows + self.order.stored(row) as usize];
                    out[column * BYTES..][..BYTES].copy_from_slice(&value);
                }
            }
        });
    }
}

/// Rows of one or more tensors, one after the other, in one format.
#[derive(Clone)]
pub struct StoredRows {
    segments: Vec<Segment>,
    columns: u32,
    row_bytes: usize,
    /// Whether the rows are laid out in planes.
    planes: bool,
}

impl StoredRows {
    /// A tensor's rows, to be converted to `format`.
    pub fn new(tensor: Tensor, format: Format, transposed: bool, order: Order) -> Self {
        let [a, b] = tensor.shape[..] else { panic!("{}: a matrix", tensor.name) };
        let (rows, columns) = if transposed { (b, a) } else { (a, b) };
        let row_bytes = format.row_bytes(columns);
        let segments = vec![Segment { tensor, format, transposed, order, rows: 0..rows as u32 }];
        Self { segments, columns: columns as u32, row_bytes, planes: false }
    }

    pub fn columns(&self) -> u32 {
        self.columns
    }
    pub fn format(&self) -> Format {
        self.segments[0].format
    }
    pub fn len(&self) -> u32 {
        self.segments.iter().map(|s| s.rows.len() as u32).sum()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the rows of `other`.
    pub fn append(&mut self, other: Self) {
        assert_eq!((self.columns, self.format()), (other.columns, other.format()), "rows of a kind");
        self.segments.extend(other.segments);
    }

    /// The rows in `taken`, to be written `row_bytes` apart.
    pub fn piece(&self, taken: Range<u32>, row_bytes: usize) -> Self {
        let (mut segments, mut first) = (Vec::new(), 0);
        for segment in &self.segments {
            let len = segment.rows.len() as u32;
            let (from, to) = (taken.start.clamp(first, first + len), taken.end.clamp(first, first + len));
            if from < to {
                let rows = segment.rows.start + from - first..segment.rows.start + to - first;
                segments.push(Segment { rows, ..segment.clone() });
            }
            first += len;
        }
        Self { segments, columns: self.columns, row_bytes, planes: self.planes }
    }

    /// The same rows, laid out in planes or not.
    pub fn in_planes(self, planes: bool) -> Self {
        Self { planes, ..self }
    }

    /// Writes the rows from `first` on as blocks, `row_bytes` apart.
    fn fill_blocks(&self, first: usize, out: &mut [u8], row_bytes: usize) {
        let wanted = first as u32..first as u32 + (out.len() / row_bytes) as u32;
        let mut out = out;
        for segment in &self.piece(wanted, row_bytes).segments {
            let (head, tail) = out.split_at_mut(segment.rows.len() * row_bytes);
            segment.fill(segment.rows.start, head, row_bytes);
            out = tail;
        }
    }
}

impl Contents for StoredRows {
    fn rows(&self) -> usize {
        self.len() as usize
    }
    fn row_bytes(&self) -> usize {
        self.row_bytes
    }
    fn fill(&self, first: usize, out: &mut [u8]) {
        if !self.planes {
            return self.fill_blocks(first, out, self.row_bytes);
        }
        let (format, columns) = (self.format(), self.columns as usize);
        let stored_bytes = format.row_bytes(columns);
        out.par_chunks_mut(self.row_bytes * STRIP).enumerate().for_each(|(strip, out)| {
            let mut rows = vec![0; out.len() / self.row_bytes * stored_bytes];
            self.fill_blocks(first + strip * STRIP, &mut rows, stored_bytes);
            for (blocks, out) in rows.chunks(stored_bytes).zip(out.chunks_mut(self.row_bytes)) {
                planes::lay(format, blocks, columns, out);
            }
        });
    }
    fn mapped(&self) -> Option<&[u8]> {
        let [segment] = &self.segments[..] else { return None };
        let format = segment.format;
        let as_stored = !self.planes
            && format == segment.tensor.format
            && !segment.transposed
            && segment.order == Order::AsStored
            && self.row_bytes == format.row_bytes(self.columns as usize);
        if !as_stored {
            return None;
        }
        let first = segment.rows.start as usize * self.row_bytes;
        let bytes = &segment.tensor.bytes()[first..][..segment.rows.len() * self.row_bytes];
        (bytes.as_ptr() as usize).is_multiple_of(format.alignment()).then_some(bytes)
    }
}
