//! Uploads weights to the GPU through a fixed ring of staging buffers, so that the host's memory use does not
//! grow with the model.

use super::Gpu;
use crate::{buffers::Contents, error::Result};
use std::sync::mpsc::{Receiver, channel};

/// The size of a staging buffer in bytes. A larger row gets a ring of buffers of its size.
const CHUNK: usize = 8 << 20;
const SLOTS: usize = 3;

struct Slot {
    staging: wgpu::Buffer,
    /// The submission that copies from the buffer, and the signal that the buffer is mapped again.
    busy: Option<(wgpu::SubmissionIndex, Receiver<()>)>,
}

/// The ring of staging buffers.
pub struct Upload<'a> {
    gpu: &'a Gpu,
    slots: Vec<Slot>,
    next: usize,
    /// The bytes for the next staging buffer. Rows are built here in place, since a mapped buffer is
    /// write-only.
    chunk: Vec<u8>,
}

impl<'a> Upload<'a> {
    pub fn new(gpu: &'a Gpu) -> Self {
        Self { gpu, slots: Vec::new(), next: 0, chunk: Vec::new() }
    }

    fn resize(&mut self, bytes: usize) {
        let staging = || {
            self.gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("staging"),
                size: bytes as u64,
                usage: wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: true,
            })
        };
        self.slots = (0..SLOTS).map(|_| Slot { staging: staging(), busy: None }).collect();
        self.chunk = vec![0; bytes];
    }

    /// Fills a buffer with rows of weights. `progress` receives the size of each chunk in bytes.
    pub fn fill(
        &mut self,
        buffer: &wgpu::Buffer,
        contents: &dyn Contents,
        progress: &dyn Fn(u64),
    ) -> Result<()> {
        let row_bytes = contents.row_bytes();
        if self.chunk.len() < row_bytes.max(CHUNK) {
            self.resize(row_bytes.max(CHUNK));
        }
        let rows_at_once = self.chunk.len() / row_bytes;
        for first in (0..contents.rows()).step_by(rows_at_once) {
            let bytes = rows_at_once.min(contents.rows() - first) * row_bytes;
            contents.fill(first, &mut self.chunk[..bytes]);
            self.send(buffer, (first * row_bytes) as u64, bytes)?;
            progress(bytes as u64);
        }
        Ok(())
    }

    fn send(&mut self, buffer: &wgpu::Buffer, at: u64, bytes: usize) -> Result<()> {
        let slot = &mut self.slots[self.next];
        self.next = (self.next + 1) % SLOTS;
        if let Some((submission, ready)) = slot.busy.take() {
            self.gpu.wait(Some(submission))?;
            // The callback has run by now. If it has not, the device is lost, and `check` reports that.
            if ready.try_recv().is_err() {
                self.gpu.check()?;
            }
        }
        let range = 0..bytes as u64;
        match slot.staging.get_mapped_range_mut(range.clone()) {
            Ok(mut view) => view.copy_from_slice(&self.chunk[..bytes]),
            Err(e) => return Err(self.gpu.failed("a staging buffer could not be mapped", e)),
        }
        slot.staging.unmap();
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&slot.staging, 0, buffer, at, range.end);
        let submission = self.gpu.queue.submit([encoder.finish()]);
        let (sender, ready) = channel();
        slot.staging.map_async(wgpu::MapMode::Write, .., move |result| {
            if result.is_ok() {
                let _ = sender.send(());
            }
        });
        slot.busy = Some((submission, ready));
        Ok(())
    }
}
