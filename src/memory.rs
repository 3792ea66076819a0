//! The buffers' contents on the CPU, typed by what they hold.

use crate::{
    plan::{Buffer, Buffers, Content, Rows, Sizes},
    weights::Contents,
};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

enum Storage {
    /// Weights that lie in the mapped file just as the kernels read them.
    Mapped(Arc<dyn Contents>),
    /// Weights that were reordered or padded: words, so that they are aligned.
    Packed(Vec<u32>),
    Values(RwLock<Vec<f32>>),
    Ids(RwLock<Vec<u32>>),
}

/// The contents of a model's buffers. As in WebGPU, a pass may not read a buffer that another of its operands
/// writes: that panics, and is a bug in the plan. The locks say so across threads; none is ever waited for.
pub struct Memory(Vec<Storage>);

impl Memory {
    /// Memory for the buffers, the loaded ones filled; `progress` is told of each run of bytes.
    pub fn new(buffers: &Buffers, sizes: &Sizes, progress: &dyn Fn(u64)) -> Self {
        let storage = |buffer| {
            let bytes = buffers.bytes(buffer, sizes);
            let storage = match buffers.content(buffer) {
                Content::Loaded(contents) if contents.mapped().is_some() => Storage::Mapped(contents.clone()),
                Content::Loaded(contents) => Storage::Packed(packed(&**contents, bytes)),
                Content::Activation { .. } | Content::Cache { .. } | Content::Partials { .. } => {
                    Storage::Values(RwLock::new(vec![0.0; bytes as usize / 4]))
                }
                Content::Ids => Storage::Ids(RwLock::new(vec![0; bytes as usize / 4])),
            };
            if matches!(storage, Storage::Mapped(_) | Storage::Packed(_)) {
                progress(bytes);
            }
            storage
        };
        Self(buffers.all().map(storage).collect())
    }

    /// Bytes that [`Memory::new`] takes: all but the weights that stay where they are mapped.
    pub fn own_bytes(buffers: &Buffers, sizes: &Sizes) -> u64 {
        let is_mapped =
            |content: &Content| matches!(content, Content::Loaded(contents) if contents.mapped().is_some());
        buffers.total(sizes, |content| !is_mapped(content))
    }

    /// The bytes of a loaded buffer, aligned to the values that it holds.
    pub fn bytes(&self, buffer: Buffer) -> &[u8] {
        match &self.0[buffer.0 as usize] {
            Storage::Mapped(contents) => contents.mapped().expect("checked when it was made"),
            Storage::Packed(words) => bytemuck::cast_slice(words),
            _ => panic!("buffer {} holds no weights", buffer.0),
        }
    }
    /// A loaded buffer of f32: a layer's vectors, a table.
    pub fn loaded(&self, buffer: Buffer) -> &[f32] {
        bytemuck::cast_slice(self.bytes(buffer))
    }
    pub fn read(&self, buffer: Buffer) -> RwLockReadGuard<'_, Vec<f32>> {
        self.values(buffer).try_read().unwrap_or_else(|_| panic!("buffer {} is being written", buffer.0))
    }
    pub fn write(&self, buffer: Buffer) -> RwLockWriteGuard<'_, Vec<f32>> {
        self.values(buffer).try_write().unwrap_or_else(|_| panic!("buffer {} is in use already", buffer.0))
    }
    /// The ids sampled last.
    pub fn ids(&self, buffer: Buffer) -> RwLockReadGuard<'_, Vec<u32>> {
        self.id_storage(buffer).try_read().unwrap_or_else(|_| panic!("the ids are being written"))
    }
    pub fn ids_mut(&self, buffer: Buffer) -> RwLockWriteGuard<'_, Vec<u32>> {
        self.id_storage(buffer).try_write().unwrap_or_else(|_| panic!("the ids are in use already"))
    }
    /// The first `count` rows of an activation, without the gaps between them.
    pub fn rows(&self, rows: Rows, count: usize) -> Vec<f32> {
        let values = self.read(rows.buffer);
        let chunks = values.chunks(rows.stride() as usize).take(count);
        chunks.flat_map(|row| &row[..rows.width as usize]).copied().collect()
    }

    fn id_storage(&self, buffer: Buffer) -> &RwLock<Vec<u32>> {
        match &self.0[buffer.0 as usize] {
            Storage::Ids(ids) => ids,
            _ => panic!("buffer {} holds no ids", buffer.0),
        }
    }
    fn values(&self, buffer: Buffer) -> &RwLock<Vec<f32>> {
        match &self.0[buffer.0 as usize] {
            Storage::Values(values) => values,
            _ => panic!("buffer {} holds no activations", buffer.0),
        }
    }
}

fn packed(contents: &dyn Contents, bytes: u64) -> Vec<u32> {
    let mut words = vec![0u32; bytes.div_ceil(4) as usize];
    contents.fill(0, &mut bytemuck::cast_slice_mut(&mut words)[..bytes as usize]);
    words
}
