//! The one error for the outside world: a sentence that names what is wrong and what to do, and the exit code
//! that goes with it.

/// What can go wrong for a user. The text is one sentence; `source()` holds the causes that `-v` prints.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: Kind,
    message: String,
    #[source]
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Whose fault an [`Error`] is, which decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something failed while running.
    Run,
    /// A wrong argument or request.
    Request,
    /// The model is missing, damaged or not supported.
    Model,
    /// No suitable device.
    Device,
    /// Not enough memory.
    Memory,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), cause: None }
    }
    pub fn run(message: impl Into<String>) -> Self {
        Self::new(Kind::Run, message)
    }
    pub fn request(message: impl Into<String>) -> Self {
        Self::new(Kind::Request, message)
    }
    pub fn model(message: impl Into<String>) -> Self {
        Self::new(Kind::Model, message)
    }
    pub fn device(message: impl Into<String>) -> Self {
        Self::new(Kind::Device, message)
    }
    pub fn memory(message: impl Into<String>) -> Self {
        Self::new(Kind::Memory, message)
    }

    /// The same error, with what caused it.
    pub fn because(self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The process's exit code for this error.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Run => 1,
            Kind::Request => 2,
            Kind::Model => 3,
            Kind::Device => 4,
            Kind::Memory => 5,
        }
    }
}
