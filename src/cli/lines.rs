//! Reads what a user says, message by message: typed in a line editor, or piped into stdin.

use crate::error::{Error, Result};
use rustyline::{DefaultEditor, error::ReadlineError};
use std::io::{BufRead, IsTerminal};

/// A source of messages.
pub struct Lines {
    /// The line editor; none where stdin or stdout is not a terminal.
    editor: Option<DefaultEditor>,
}

/// A line of its own that begins and ends a message of several lines.
const FENCE: &str = "\"\"\"";

impl Lines {
    /// Opens a line editor with the history of earlier conversations if stdin and stdout are a terminal.
    pub fn open() -> Self {
        let typed = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let editor = typed.then(|| DefaultEditor::new().ok()).flatten();
        let mut lines = Self { editor };
        if let (Some(editor), Some(path)) = (&mut lines.editor, history()) {
            // The first time there is no history.
            let _ = editor.load_history(&path);
        }
        lines
    }

    /// Whether messages are typed at a terminal.
    pub fn are_typed(&self) -> bool {
        self.editor.is_some()
    }

    /// The next message; none at the end of the input.
    pub fn next(&mut self) -> Result<Option<String>> {
        let Some(editor) = &mut self.editor else { return from_stdin() };
        let mut message = String::new();
        let mut fenced = false;
        loop {
            let line = match editor.readline(if message.is_empty() && !fenced { ">>> " } else { "... " }) {
                Ok(line) => line,
                // Ctrl-C drops the unfinished message.
                Err(ReadlineError::Interrupted) => {
                    (message, fenced) = (String::new(), false);
                    continue;
                }
                Err(ReadlineError::Eof) => return Ok(None),
                Err(e) => return Err(Error::run(format!("the terminal cannot be read: {e}")).because(e)),
            };
            if line.trim() == FENCE {
                fenced = !fenced;
            } else if let Some(begun) = line.strip_suffix('\\').filter(|_| !fenced) {
                message = message + begun + "\n";
                continue;
            } else {
                message += &line;
                if fenced {
                    message += "\n";
                }
            }
            if !fenced {
                let _ = editor.add_history_entry(message.trim_end());
                return Ok(Some(message));
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if let (Some(editor), Some(path)) = (&mut self.editor, history()) {
            let _ = path.parent().map(std::fs::create_dir_all);
            // Failing to save the history is not an error.
            let _ = editor.save_history(&path);
        }
    }
}

fn history() -> Option<std::path::PathBuf> {
    Some(dirs::data_local_dir()?.join("wgpt/history.txt"))
}

/// Reads one line as a message.
fn from_stdin() -> Result<Option<String>> {
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(line.trim_end_matches(['\n', '\r']).to_owned())),
        Err(e) => Err(Error::request(format!("stdin cannot be read: {e}")).because(e)),
    }
}
