//! What the driver made of the programs, kept between runs: a file for each adapter in `wgpt/pipelines` of the user's
//! cache folder. Only Vulkan hands it out.
//!
//! A file that another build of wgpt wrote, or that is not whole, is not read, for a driver trusts what it is given;
//! wgpu itself sees to another driver or adapter. Nothing here fails a run: without the file, programs are compiled.

use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash, Hasher},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Bytes beyond which a file is begun anew, for nothing in it is ever forgotten.
const MOST: usize = 64 << 20;

pub(super) struct PipelineCache {
    pub cache: wgpu::PipelineCache,
    path: PathBuf,
    /// Bytes that an earlier run left.
    known: Option<usize>,
}

impl PipelineCache {
    /// None where the device does not hand it out, or the user has no cache folder.
    pub fn open(device: &wgpu::Device, adapter: &wgpu::AdapterInfo) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let path = dirs::cache_dir()?.join("wgpt/pipelines").join(wgpu::util::pipeline_cache_key(adapter)?);
        let kept = fs::read(&path).ok();
        let data = kept.as_deref().and_then(whole);
        let descriptor = wgpu::PipelineCacheDescriptor { label: Some("wgpt"), data, fallback: true };
        // SAFETY: the data are those that `keep` had from wgpu, as their hash says.
        let cache = unsafe { device.create_pipeline_cache(&descriptor) };
        let known = data.and_then(|_| cache.get_data()).map(|data| data.len());
        tracing::debug!("{}: {} bytes of compiled programs", path.display(), known.unwrap_or(0));
        Some(Self { cache, path, known })
    }

    /// Writes what there is by now, if something came to it.
    pub fn keep(&self) {
        let Some(data) = self.cache.get_data().filter(|data| Some(data.len()) != self.known) else { return };
        if let Err(e) = write(&self.path, &data) {
            tracing::debug!("{}: not written: {e}", self.path.display());
        }
    }
}

/// Under another name first: a file is there whole or not at all.
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

/// What [`write`] wrote in this build, if it is that.
fn whole(file: &[u8]) -> Option<&[u8]> {
    let (known, data) = file.split_first_chunk::<8>()?;
    (data.len() <= MOST && *known == hash(data)).then_some(data)
}

/// Of data and build.
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
