//! The Hub's cache on disk, laid out as the Hub's own tools lay it out. Each repository has a folder
//! `models--owner--name`: `blobs` holds the contents of files, each named by its ETag; `snapshots/COMMIT`
//! holds links to them under the files' paths; `refs/main` names the newest commit.

use super::{
    checksum::Checksum,
    name::{Name, files, is_model, within},
    remote::{Failure, Remote, RemoteFile, persist},
};
use crate::{
    error::{Error, Result},
    weights::Split,
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// A model in the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cached {
    /// The name that `--model` takes.
    pub name: String,
    /// Bytes on disk.
    pub size_bytes: u64,
    pub path: PathBuf,
    /// Whether every file is present, so that the model can run.
    pub complete: bool,
}

/// A repository's folder in the cache, and its folder of lock files.
pub(super) struct Repository {
    folder: PathBuf,
    locks: PathBuf,
}

/// The error for a file or folder that cannot be made, written, read or removed.
fn failed(path: &Path, what: &str) -> impl Fn(io::Error) -> Error {
    move |e| Error::run(format!("{} cannot be {what}: {e}", path.display())).because(e)
}

impl Repository {
    pub fn of(cache: &Path, name: &str) -> Self {
        let folder = format!("models--{}", name.replace('/', "--"));
        Self { locks: cache.join(".locks").join(&folder), folder: cache.join(folder) }
    }

    /// The folder that holds a commit's files under their paths.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The folders of all commits; the one that `refs/main` names comes first.
    fn snapshots(&self) -> Vec<PathBuf> {
        let main = fs::read_to_string(self.folder.join("refs/main")).unwrap_or_default();
        let folders = fs::read_dir(self.folder.join("snapshots")).into_iter().flatten().flatten();
        let mut folders: Vec<PathBuf> = folders.map(|entry| entry.path()).collect();
        folders.sort_by_key(|folder| (!folder.ends_with(main.trim()), folder.clone()));
        folders
    }

    /// Records the newest commit in `refs/main`.
    pub fn set_commit(&self, commit: &str) -> Result<()> {
        let main = self.folder.join("refs/main");
        if fs::read_to_string(&main).is_ok_and(|known| known == commit) {
            return Ok(());
        }
        let refs = self.folder.join("refs");
        fs::create_dir_all(&refs).map_err(failed(&refs, "made"))?;
        fs::write(&main, commit).map_err(failed(&main, "written"))
    }

    /// The path of a model in this repository, if all of its files are present.
    pub fn find(&self, name: &Name) -> Option<PathBuf> {
        self.snapshots().iter().find_map(|folder| within(name, folder))
    }

    fn blob(&self, file: &RemoteFile) -> PathBuf {
        self.folder.join("blobs").join(&file.etag)
    }

    /// The part of a file that has been downloaded so far.
    fn partial(&self, file: &RemoteFile) -> PathBuf {
        self.folder.join("blobs").join(format!("{}.incomplete", file.etag))
    }

    /// Whether a file's whole content is present, as a blob, or at its own path on systems without symbolic
    /// links.
    pub fn has(&self, file: &RemoteFile, commit: &str) -> bool {
        let at = [self.blob(file), self.snapshot(commit).join(&file.path)];
        at.iter().any(|path| fs::symlink_metadata(path).is_ok_and(|m| m.is_file() && m.len() == file.bytes))
    }

    /// How many bytes of a file remain to be downloaded.
    pub fn left_of(&self, file: &RemoteFile) -> u64 {
        file.bytes.saturating_sub(fs::metadata(self.partial(file)).map_or(0, |m| m.len()))
    }

    /// Downloads a file's content, resuming an earlier download. The blob gets its final name only when it is
    /// complete and its checksum is right.
    pub fn fetch(&self, file: &RemoteFile, remote: &Remote, progress: &dyn Fn(u64)) -> Result<()> {
        let blobs = self.folder.join("blobs");
        for folder in [&blobs, &self.locks] {
            fs::create_dir_all(folder).map_err(failed(folder, "made"))?;
        }
        // Another process may download the same file: the Hub's own tools use the same lock. Dropping it
        // unlocks.
        let lock = self.locks.join(format!("{}.lock", file.etag));
        let _locked =
            File::create(&lock).and_then(|f| f.lock().map(|()| f)).map_err(failed(&lock, "locked"))?;
        let (blob, partial) = (self.blob(file), self.partial(file));
        if fs::metadata(&blob).is_ok_and(|m| m.len() == file.bytes) {
            return Ok(());
        }
        let mut to = Partial::open(&partial, file).map_err(failed(&partial, "written"))?;
        persist(remote.endpoint(), || to.go_on(remote, progress))?;
        to.file.sync_all().map_err(failed(&partial, "written"))?;
        if let Some(got) = to.sum.map(Checksum::hex).filter(|got| *got != file.etag) {
            // Any byte may be the wrong one, so the whole download is discarded.
            let _ = fs::remove_file(&partial);
            return Err(Error::model(format!(
                "{} of {} came damaged: its checksum is {got}, but should be {}; try again",
                file.path, file.repository, file.etag
            )));
        }
        fs::rename(&partial, &blob).map_err(failed(&blob, "named"))
    }

    /// Links a file's path at a commit to its blob. Does nothing where the path already holds the content
    /// itself.
    pub fn link(&self, file: &RemoteFile, commit: &str) -> Result<()> {
        let (path, blob) = (self.snapshot(commit).join(&file.path), self.blob(file));
        if !blob.is_file() {
            return Ok(());
        }
        let folder = path.parent().expect("a file in a folder");
        fs::create_dir_all(folder).map_err(failed(folder, "made"))?;
        let up = std::iter::repeat_n("..", 1 + file.path.split('/').count());
        let to: PathBuf = up.chain(["blobs", &file.etag]).collect();
        if fs::read_link(&path).is_ok_and(|link| link == to) {
            return Ok(());
        }
        // A rename replaces an older link in one step, so that the path is never missing.
        let new = folder.join(format!("{}.link", file.etag));
        let _ = fs::remove_file(&new);
        symlink(&to, &new)
            .and_then(|()| fs::rename(&new, &path))
            // Where symbolic links are not available, as often on Windows, the content itself moves to the
            // path.
            .or_else(|_| fs::rename(&blob, &path))
            .map_err(failed(&path, "made"))
    }

    /// Removes the whole repository, or, from every commit, the one model that a name picks. Returns the
    /// number of bytes freed.
    pub fn remove(&self, name: &Name) -> Result<u64> {
        let before = size(&self.folder);
        let is_there = match name.pick {
            Some(_) => self.find(name).is_some(),
            None => self.folder.is_dir(),
        };
        if !is_there {
            return Err(Error::model(format!("there is no {name} in the cache: `wgpt list` says what is")));
        }
        // A process that downloads holds a lock.
        for lock in fs::read_dir(&self.locks).into_iter().flatten().flatten() {
            if File::open(lock.path())
                .is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
            {
                return Err(Error::run(format!(
                    "{name} is being fetched by another process: end that first"
                )));
            }
        }
        if name.pick.is_some() {
            while let Some(path) = self.find(name) {
                Split::files(&path).iter().try_for_each(|file| self.remove_file(file))?;
            }
            if self.paths().next().is_some() {
                return Ok(before - size(&self.folder));
            }
        }
        fs::remove_dir_all(&self.folder).map_err(failed(&self.folder, "removed"))?;
        Ok(before)
    }

    /// Removes a path, and the blob that it links to, unless other paths link to that blob. A target outside
    /// of `blobs` is left alone.
    fn remove_file(&self, path: &Path) -> Result<()> {
        let content = fs::canonicalize(path).map_err(failed(path, "read"))?;
        fs::remove_file(path).map_err(failed(path, "removed"))?;
        let is_blob =
            fs::canonicalize(self.folder.join("blobs")).is_ok_and(|blobs| content.starts_with(blobs));
        let mut others = self.paths().filter_map(|path| fs::canonicalize(path).ok());
        if is_blob && !others.any(|other| other == content) {
            fs::remove_file(&content).map_err(failed(&content, "removed"))?;
        }
        Ok(())
    }

    /// The paths of all files of all commits.
    fn paths(&self) -> impl Iterator<Item = PathBuf> {
        let of = |folder: PathBuf| files(&folder).into_iter().map(move |file| folder.join(file));
        self.snapshots().into_iter().flat_map(of)
    }
}

/// A partly downloaded file.
struct Partial<'a> {
    of: &'a RemoteFile,
    file: File,
    /// The number of bytes on disk, and the checksum of them.
    done: u64,
    sum: Option<Checksum>,
    /// Whether the download has already restarted from the beginning because the server refused a range.
    restarted: bool,
}

impl<'a> Partial<'a> {
    /// Opens the file and hashes what an earlier download left in it.
    fn open(path: &Path, of: &'a RemoteFile) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let mut partial = Self { of, file, done: 0, sum: of.checksum(), restarted: false };
        if partial.file.metadata()?.len() > of.bytes {
            partial.restart()?;
        }
        let mut buffer = vec![0; 1 << 16];
        loop {
            match partial.file.read(&mut buffer)? {
                0 => return Ok(partial),
                count => partial.count(&buffer[..count]),
            }
        }
    }

    fn count(&mut self, bytes: &[u8]) {
        self.done += bytes.len() as u64;
        if let Some(sum) = &mut self.sum {
            sum.update(bytes);
        }
    }

    fn restart(&mut self) -> io::Result<()> {
        (self.done, self.sum) = (0, self.of.checksum());
        self.file.set_len(0)
    }

    /// Makes one request for the missing bytes.
    fn go_on(&mut self, remote: &Remote, progress: &dyn Fn(u64)) -> Result<(), Failure> {
        if self.done == self.of.bytes {
            return Ok(());
        }
        let before = self.done;
        let cannot = |e: io::Error| {
            Failure::Final(Error::run(format!("{} cannot be kept: {e}", self.of.path)).because(e))
        };
        let (from, is_rest) = match remote.open(self.of, self.done) {
            // Some servers do not support ranges. A second refusal means that the file is shorter than the
            // Hub says.
            Err(Failure::NoSuchRange) if !self.restarted => {
                self.restarted = true;
                self.restart().map_err(cannot)?;
                return Err(Failure::NoSuchRange);
            }
            Err(Failure::NoSuchRange) => {
                let RemoteFile { path, repository, bytes, .. } = self.of;
                let message = format!(
                    "{path} of {repository} has not the {bytes} bytes that the Hub says: try again later"
                );
                return Err(Failure::Final(Error::run(message)));
            }
            opened => opened?,
        };
        if !is_rest {
            self.restart().map_err(cannot)?;
        }
        // Reading one byte more than expected detects a file that is too long, and keeps an endless response
        // from filling the disk.
        let mut from = from.take(self.of.bytes - self.done + 1);
        let mut buffer = vec![0; 1 << 16];
        let cause = loop {
            match from.read(&mut buffer) {
                Ok(0) => break "the connection was closed".to_owned(),
                Ok(count) => {
                    self.file.write_all(&buffer[..count]).map_err(cannot)?;
                    self.count(&buffer[..count]);
                    progress(count as u64);
                }
                Err(e) => break e.to_string(),
            }
        };
        match self.done {
            done if done == self.of.bytes => Ok(()),
            done if done > self.of.bytes => {
                self.restart().map_err(cannot)?;
                Err(Failure::Passing {
                    cause: format!("more came of {} than there is", self.of.path),
                    got_on: false,
                })
            }
            done => Err(Failure::Passing {
                cause: format!("{} broke off after {done} of {} bytes: {cause}", self.of.path, self.of.bytes),
                got_on: done > before,
            }),
        }
    }
}

#[cfg(unix)]
fn symlink(to: &Path, at: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(to, at)
}
#[cfg(windows)]
fn symlink(to: &Path, at: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(to, at)
}

/// Bytes that a folder's files take. Links are not followed.
fn size(folder: &Path) -> u64 {
    let of = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => size(&entry.path()),
        Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |m| m.len()),
        _ => 0,
    };
    fs::read_dir(folder).into_iter().flatten().flatten().map(of).sum()
}

/// The models in a cache, sorted by name. The safetensors of a folder are one model; each GGUF file, with all
/// its parts, is another.
pub(super) fn list(cache: &Path) -> Result<Vec<Cached>> {
    let folders = match fs::read_dir(cache) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        folders => folders.map_err(failed(cache, "read"))?,
    };
    let mut models = Vec::new();
    for folder in folders.flatten() {
        let folder = folder.file_name().into_string().unwrap_or_default();
        let Some(repository) = folder.strip_prefix("models--") else { continue };
        let Some(name) = Name::parse(&repository.replacen("--", "/", 1)) else { continue };
        let here = Repository::of(cache, &name.repository);
        let mut found = BTreeMap::new();
        let size_of = |file: PathBuf| fs::metadata(file).map_or(0, |m| m.len());
        let cached = |name: String, files: Vec<PathBuf>, path: PathBuf| {
            let complete = files.iter().all(|file| file.exists());
            let size_bytes = files.into_iter().map(size_of).sum();
            (name.clone(), Cached { name, size_bytes, path, complete })
        };
        // A model that several commits hold is listed once, from the newest.
        for snapshot in here.snapshots().into_iter().rev() {
            let (ggufs, others): (Vec<_>, Vec<_>) =
                files(&snapshot).into_iter().partition(|file| file.ends_with(".gguf"));
            found.extend(ggufs.iter().filter(|file| is_model(file)).map(|file| {
                let path = snapshot.join(file);
                cached(format!("{name}:{file}"), Split::files(&path), path)
            }));
            if let Some(path) = within(&name, &snapshot).filter(|path| path.is_dir()) {
                let files = others.iter().map(|file| snapshot.join(file)).collect();
                found.extend([cached(name.to_string(), files, path)]);
            }
        }
        if found.is_empty() {
            let size_bytes = size(&here.folder);
            models.push(Cached { name: name.to_string(), size_bytes, path: here.folder, complete: false });
        }
        models.extend(found.into_values());
    }
    models.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(models)
}
