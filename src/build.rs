//! Build script: passes the version and, in a git checkout, the commit to the crate as `WGPT_VERSION`.

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    if std::path::Path::new(".git/logs/HEAD").exists() {
        println!("cargo::rerun-if-changed=.git/logs/HEAD");
    }
    let output = std::process::Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let commit = output.ok().filter(|o| o.status.success()).and_then(|o| String::from_utf8(o.stdout).ok());
    let version = env!("CARGO_PKG_VERSION");
    match commit.as_deref().map(str::trim) {
        Some(commit) => println!("cargo::rustc-env=WGPT_VERSION={version} ({commit})"),
        None => println!("cargo::rustc-env=WGPT_VERSION={version}"),
    }
}
