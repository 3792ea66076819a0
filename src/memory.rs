//! The contents of a plan's buffers on the CPU, with a type for each kind of content.

use crate::buffers::{Buffer, Buffers, Content, Contents, Rows, Sizes};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

enum Storage {
    /// Weights that the kernels read directly from the mapped file.
    Mapped(Arc<dyn Contents>),
    /// Weights that were converted, reordered or padded; stored as words for alignment.
    Packed(Vec<u32>),
    Values(RwLock<Vec<f32>>),
    Ids(RwLock<Vec<u32>>),
}

/// The contents of a model's buffers. As in WebGPU, a pass may not read a buffer that it also binds for
/// writing: this panics, and is a bug in the plan. The locks only detect that; they never wait.
pub struct Memory(Vec<Storage>);

impl Memory {
    /// Allocates the buffers, and fills those with loaded contents that are not mapped. Calls `progress` with
    /// the bytes of each buffer with loaded contents once it is ready.
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

    /// Bytes that [`Memory::new`] allocates: all but the weights that stay in mapped files.
    pub fn own_bytes(buffers: &Buffers, sizes: &Sizes) -> u64 {
        let is_mapped =
            |content: &Content| matches!(content, Content::Loaded(contents) if contents.mapped().is_some());
        buffers.total(sizes, |content| !is_mapped(content))
    }

    /// The bytes of a loaded buffer, aligned for the values that it holds.
    pub fn bytes(&self, buffer: Buffer) -> &[u8] {
        match &self.0[buffer.0 as usize] {
            Storage::Mapped(contents) => contents.mapped().expect("checked when it was made"),
            Storage::Packed(words) => bytemuck::cast_slice(words),
            _ => panic!("buffer {} holds no weights", buffer.0),
        }
    }
    /// The values of a loaded buffer of f32, such as a layer's vectors or a table.
    pub fn loaded(&self, buffer: Buffer) -> &[f32] {
        bytemuck::cast_slice(self.bytes(buffer))
    }
    /// The values of an activation, a cache or partial results.
    ///
    /// # Panics
    /// If the buffer is being written, or holds something else.
    pub fn read(&self, buffer: Buffer) -> RwLockReadGuard<'_, Vec<f32>> {
        self.values(buffer).try_read().unwrap_or_else(|_| panic!("buffer {} is being written", buffer.0))
    }
    /// The same values, for writing.
    ///
    /// # Panics
    /// If the buffer is in use, or holds something else.
    pub fn write(&self, buffer: Buffer) -> RwLockWriteGuard<'_, Vec<f32>> {
        self.values(buffer).try_write().unwrap_or_else(|_| panic!("buffer {} is in use already", buffer.0))
    }
    /// The words of the ids buffer: the ids sampled last, then their probabilities.
    pub fn ids(&self, buffer: Buffer) -> RwLockReadGuard<'_, Vec<u32>> {
        self.id_storage(buffer).try_read().unwrap_or_else(|_| panic!("the ids are being written"))
    }
    pub fn ids_mut(&self, buffer: Buffer) -> RwLockWriteGuard<'_, Vec<u32>> {
        self.id_storage(buffer).try_write().unwrap_or_else(|_| panic!("the ids are in use already"))
    }
    /// The first `count` rows of an activation. Packed: no padding between rows.
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

/// All of a buffer's contents, as words.
fn packed(contents: &dyn Contents, bytes: u64) -> Vec<u32> {
    let mut words = vec![0u32; bytes.div_ceil(4) as usize];
    contents.fill(0, &mut bytemuck::cast_slice_mut(&mut words)[..bytes as usize]);
    words
}
