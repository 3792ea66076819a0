//! Models by name: downloaded from the Hugging Face Hub, or a server with the same API, into the cache on
//! disk that the Hub's own tools share (<https://huggingface.co/docs/huggingface_hub/guides/manage-cache>).
//!
//! A model in the cache is used as it is, without the network; [`Hub::pull`] checks for a newer version. A
//! file gets its final name only when it is complete and matches the Hub's checksum. An interrupted download
//! resumes where it stopped.

mod cache;
mod checksum;
mod name;
mod remote;

pub use cache::Cached;
pub use name::Name;

use crate::error::{Error, Kind, Result};
use cache::Repository;
use name::Wanted;
pub(crate) use remote::roots;
use remote::{Remote, RemoteFile};
use std::{
    env,
    path::{Path, PathBuf},
};

/// A Hub, and the cache of files downloaded from it.
pub struct Hub {
    endpoint: String,
    token: Option<String>,
    cache: PathBuf,
    offline: bool,
}

/// Called during a download with the number of bytes that just arrived, and the number to download in all.
pub type Progress<'a> = &'a dyn Fn(u64, u64);

/// A model's location on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// A folder or a .gguf file.
    pub path: PathBuf,
    /// The model's name, where its path does not show it.
    pub name: Option<String>,
}

/// Locates a model by its path or by its name on the Hub. A model that is not in the cache is downloaded.
/// `say` receives one sentence before a large download begins.
///
/// # Errors
/// Of the kind Model where `model` is neither a path nor a name on the Hub, or cannot be had; of the kind Run
/// where the network fails.
pub fn locate(model: &str, say: &dyn Fn(&str), progress: Progress) -> Result<Located> {
    let path = Path::new(model);
    if path.exists() {
        return Ok(Located { path: path.to_owned(), name: None });
    }
    let Some(name) = Name::parse(model) else {
        return Err(Error::model(format!(
            "there is no model {model}: neither a folder nor a .gguf file has that name, and names on the \
             Hub read owner/name or owner/name:quantisation"
        )));
    };
    let hub = Hub::from_env()?;
    let path = match hub.find(&name) {
        Some(path) => path,
        None => hub.pull(&name, say, progress).map_err(|e| match e.kind() {
            Kind::Model => {
                Error::model(format!("{e}; no folder or file here has that name either")).because(e)
            }
            _ => e,
        })?,
    };
    Ok(Located { path, name: Some(name.to_string()) })
}

/// Whether an environment variable is set to a value that the Hub's own tools take as true.
fn is_yes(variable: &str) -> bool {
    env::var(variable).is_ok_and(|v| ["1", "ON", "YES", "TRUE"].contains(&v.to_uppercase().as_str()))
}

/// A path from the environment. A leading ~ stands for the user's home folder.
fn path_in_env(variable: &str) -> Option<PathBuf> {
    let path = env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from)?;
    match path.strip_prefix("~") {
        Ok(below) => Some(dirs::home_dir()?.join(below)),
        Err(_) => Some(path),
    }
}

impl Hub {
    /// Reads the settings from the environment, older variable names included: `HF_ENDPOINT`; `HF_HUB_CACHE`,
    /// else `HF_HOME`, else `XDG_CACHE_HOME`; `HF_TOKEN`, else the file that `HF_TOKEN_PATH` names, else the
    /// token that logging in left in `HF_HOME`; `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    /// Of the kind Run where the user has no home folder; of the kind Request where `HF_ENDPOINT` is not an
    /// address.
    pub fn from_env() -> Result<Self> {
        let home = path_in_env("HF_HOME").or_else(|| {
            let caches = path_in_env("XDG_CACHE_HOME").or_else(|| Some(dirs::home_dir()?.join(".cache")))?;
            Some(caches.join("huggingface"))
        });
        let no_home =
            || Error::run("there is no home folder for models: say with HF_HOME where they are to lie");
        let home = home.ok_or_else(no_home)?;
        let text = |variable: &str| env::var(variable).ok().filter(|text| !text.trim().is_empty());
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(Error::request(format!(
                "HF_ENDPOINT is {endpoint}, but it must begin with https:// or http://"
            )));
        }
        let token_file = path_in_env("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let token = text("HF_TOKEN")
            .or_else(|| text("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| std::fs::read_to_string(token_file).ok());
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            cache: path_in_env("HF_HUB_CACHE")
                .or_else(|| path_in_env("HUGGINGFACE_HUB_CACHE"))
                .unwrap_or_else(|| home.join("hub")),
            offline: is_yes("HF_HUB_OFFLINE"),
        })
    }

    /// The path of a model in the cache, if all of its files are present.
    pub fn find(&self, name: &Name) -> Option<PathBuf> {
        self.repository(name).find(name)
    }

    /// Downloads the files of a model's newest version that the cache lacks. Returns the model's path.
    ///
    /// # Errors
    /// Of the kind Model where the model does not exist, is not supported, or may not be read, or if the
    /// network is off limits (`HF_HUB_OFFLINE`); of the kind Run where the network or the disk fails.
    pub fn pull(&self, name: &Name, say: &dyn Fn(&str), progress: Progress) -> Result<PathBuf> {
        let repository = self.repository(name);
        if self.offline {
            let cache = self.cache.display();
            let what =
                if repository.find(name).is_some() { "may be newer on the Hub than" } else { "is not" };
            return Err(Error::model(format!(
                "the model {name} {what} in the cache {cache}, but HF_HUB_OFFLINE says to stay off the \
                 network: unset it to fetch the model"
            )));
        }
        let remote = Remote::new(&self.endpoint, self.token.as_deref())?;
        let revision = remote.revision(&name.repository)?;
        let wanted = Wanted::of(name, &revision.files)?;
        let fetch = |paths: &[String], progress: Progress| -> Result<()> {
            let files: Vec<RemoteFile> = paths
                .iter()
                .map(|path| remote.file(&name.repository, &revision.commit, path))
                .collect::<Result<_>>()?;
            let missing: Vec<_> =
                files.iter().filter(|file| !repository.has(file, &revision.commit)).collect();
            let bytes: u64 = missing.iter().map(|file| repository.left_of(file)).sum();
            if bytes > 1 << 20 {
                let (count, megabytes) = (missing.len(), bytes as f64 / 1e6);
                let plural = if count == 1 { "" } else { "s" };
                say(&format!(
                    "fetching {name}: {count} file{plural}, {megabytes:.1} MB, to {}",
                    self.cache.display()
                ));
            }
            for file in missing {
                repository.fetch(file, &remote, &|new| progress(new, bytes))?;
            }
            for file in &files {
                repository.link(file, &revision.commit)?;
            }
            Ok(())
        };
        // Small files come first, so that a model whose weights are present is complete.
        fetch(&wanted.small, &|_, _| ())?;
        let folder = repository.snapshot(&revision.commit);
        fetch(&wanted.weights(name, &folder)?, progress)?;
        repository.set_commit(&revision.commit)?;
        let gone = || Error::run(format!("the files of {name} were removed while they came: try again"));
        repository.find(name).ok_or_else(gone)
    }

    /// The models in the cache, sorted by name.
    ///
    /// # Errors
    /// Of the kind Run where the cache cannot be read.
    pub fn list(&self) -> Result<Vec<Cached>> {
        cache::list(&self.cache)
    }

    /// Removes a model from the cache: the whole repository, or the one file that the name picks. Returns the
    /// number of bytes freed.
    ///
    /// # Errors
    /// Of the kind Model where the model is not in the cache; of the kind Run where another process downloads
    /// it, or its files cannot be removed.
    pub fn remove(&self, name: &Name) -> Result<u64> {
        self.repository(name).remove(name)
    }

    fn repository(&self, name: &Name) -> Repository {
        Repository::of(&self.cache, &name.repository)
    }
}
