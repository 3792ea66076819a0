//! Keeps compiled pipelines between runs, in one file for each adapter, in `wgpt/pipelines` below the user's
//! cache folder. Only Vulkan supports this.
//!
//! A driver trusts this data, so a file is ignored if it is damaged or from another build of wgpt; wgpu
//! itself checks the driver and the adapter. Nothing here makes a run fail: without a file, programs are
//! compiled.

use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash, Hasher},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// The size in bytes beyond which a file is discarded, since entries are never removed.
const MAX: usize = 64 << 20;

pub(super) struct PipelineCache {
    pub cache: wgpu::PipelineCache,
    path: PathBuf,
    /// The size of the data from earlier runs, in bytes.
    known: Option<usize>,
}

impl PipelineCache {
    /// None where the device does not support pipeline caches, or the user has no cache folder.
    pub fn open(device: &wgpu::Device, adapter: &wgpu::AdapterInfo) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let path = dirs::cache_dir()?.join("wgpt/pipelines").join(wgpu::util::pipeline_cache_key(adapter)?);
        let kept = fs::read(&path).ok();
        let data = kept.as_deref().and_then(whole);
        let descriptor = wgpu::PipelineCacheDescriptor { label: Some("wgpt"), data, fallback: true };
        // SAFETY: `whole` has checked by the hash that the data is what `keep` got from wgpu in this build.
        let cache = unsafe { device.create_pipeline_cache(&descriptor) };
        let known = data.and_then(|_| cache.get_data()).map(|data| data.len());
        tracing::debug!("{}: {} bytes of compiled programs", path.display(), known.unwrap_or(0));
        Some(Self { cache, path, known })
    }

    /// Writes the pipelines to the file, if new ones were added.
    pub fn keep(&self) {
        let Some(data) = self.cache.get_data().filter(|data| Some(data.len()) != self.known) else { return };
        if let Err(e) = write(&self.path, &data) {
            tracing::debug!("{}: not written: {e}", self.path.display());
        }
    }
}

/// Writes to another name and renames, so that the file is never incomplete.
fn write(path: &Path, data: &[u8]) -> io::Result<()> {
    let folder = path.parent().expect("a file in a folder");
    fs::create_dir_all(folder)?;
    let name = path.file_name().expect("a file").to_string_lossy();
    let new = folder.join(format!("{name}.{}", std::process::id()));
    let mut file = fs::File::create(&new)?;
    file.write_all(&hash(data))?;
    file.write_all(data)?;
    drop(file);
    fs::rename(new, path)
}

/// The data in a file, if [`write`] of this build wrote all of it.
fn whole(file: &[u8]) -> Option<&[u8]> {
    let (known, data) = file.split_first_chunk::<8>()?;
    (data.len() <= MAX && *known == hash(data)).then_some(data)
}

/// The hash of the data and the build's version.
fn hash(data: &[u8]) -> [u8; 8] {
    let mut hasher = DefaultHasher::new();
    (env!("WGPT_VERSION"), data).hash(&mut hasher);
    hasher.finish().to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_files_of_this_build_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a/b");
        let data: Vec<u8> = (0..100).collect();
        write(&path, &data).expect("written");
        let mut file = fs::read(&path).expect("read");
        assert_eq!(whole(&file), Some(&data[..]));
        assert_eq!(
            fs::read_dir(folder.path().join("a")).expect("a folder").count(),
            1,
            "no other file stays"
        );
        assert_eq!(whole(&file[..file.len() - 1]), None);
        assert_eq!(whole(&file[..7]), None);
        file[50] ^= 1;
        assert_eq!(whole(&file), None);
    }
}
