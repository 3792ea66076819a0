//! Rows of a matrix as tensors store them, and how they become ours: transposed, reordered, padded.

use super::{Contents, Format, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// How a tensor's rows follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    AsStored,
    /// In each head of so many rows the first half turns with the second (Hugging Face's LLaMA): ours lie in
    /// pairs, as in GGUF. That leaves q·k as it was.
    RopePairs(u32),
}

impl Order {
    /// Where a row of ours is stored.
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

#[derive(Clone)]
struct Segment {
    tensor: Tensor,
    /// What the rows are to be packed as.
    format: Format,
    /// Stored with a row for each column (GPT-2's Conv1D).
    transposed: bool,
    order: Order,
    /// Which of the tensor's rows, in our order.
    rows: Range<u32>,
}

/// Rows that are reordered or packed at a time: of a tensor stored by columns a run of values is read, not one.
const STRIP: usize = 64;

impl Segment {
    fn columns(&self) -> usize {
        self.tensor.shape[if self.transposed { 0 } else { 1 }]
    }

    /// Writes rows from `first` (of the tensor) on.
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

    /// Writes rows as they are stored.
    fn copy(&self, first: u32, out: &mut [u8], row_bytes: usize) {
        match self.tensor.format {
            Format::F32 => self.copy_values::<4>(first, out, row_bytes),
            Format::F16 | Format::BF16 => self.copy_values::<2>(first, out, row_bytes),
            _ => self.copy_blocks(first, out, row_bytes),
        }
    }

    /// Whole rows of blocks, which are never transposed.
    fn copy_blocks(&self, first: u32, out: &mut [u8], row_bytes: usize) {
        assert!(!self.transposed, "{}: blocks along the columns", self.tensor.name);
        let stored_bytes = self.tensor.format.row_bytes(self.tensor.shape[1]);
        for (row, out) in (first..).zip(out.chunks_mut(row_bytes)) {
            let at = self.order.stored(row) as usize * stored_bytes;
            out[..stored_bytes].copy_from_slice(&self.tensor.bytes()[at..][..stored_bytes]);
            out[stored_bytes..].fill(0);
        }
    }

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

/// Rows of one or more tensors of one format, one below the other.
#[derive(Clone)]
pub struct StoredRows {
    segments: Vec<Segment>,
    columns: u32,
    row_bytes: usize,
}

impl StoredRows {
    /// A tensor's rows, packed as `format`.
    pub fn new(tensor: Tensor, format: Format, transposed: bool, order: Order) -> Self {
        let [a, b] = tensor.shape[..] else { panic!("{}: a matrix", tensor.name) };
        let (rows, columns) = if transposed { (b, a) } else { (a, b) };
        let row_bytes = format.row_bytes(columns);
        let segments = vec![Segment { tensor, format, transposed, order, rows: 0..rows as u32 }];
        Self { segments, columns: columns as u32, row_bytes }
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

    /// Puts another's rows below.
    pub fn append(&mut self, other: Self) {
        assert_eq!((self.columns, self.format()), (other.columns, other.format()), "rows of a kind");
        self.segments.extend(other.segments);
    }

    /// Some of the rows, so many bytes apart.
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
        Self { segments, columns: self.columns, row_bytes }
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
        let wanted = first as u32..first as u32 + (out.len() / self.row_bytes) as u32;
        let mut out = out;
        for segment in &self.piece(wanted, self.row_bytes).segments {
            let (head, tail) = out.split_at_mut(segment.rows.len() * self.row_bytes);
            segment.fill(segment.rows.start, head, self.row_bytes);
            out = tail;
        }
    }
    fn mapped(&self) -> Option<&[u8]> {
        let [segment] = &self.segments[..] else { return None };
        let format = segment.format;
        let as_stored = format == segment.tensor.format
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
