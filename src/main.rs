//! The program `wgpt`. Its code is in the library, in the module `cli`.

fn main() -> std::process::ExitCode {
    wgpt::cli::main()
}
