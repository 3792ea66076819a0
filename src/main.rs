//! The program `wgpt`: all of it is in the library, under cli.

fn main() -> std::process::ExitCode {
    wgpt::cli::main()
}
