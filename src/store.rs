//! What is kept in files from one run to the next: tuning, and the kernels that the driver compiled. Both are for one adapter, lie
//! in the user's cache folder, and are no more than a saving of time: what cannot be read is left alone.

mod file;
mod pipelines;
mod tuning;

pub(crate) use pipelines::{PipelineStore, user_folder};
pub(crate) use tuning::user_tuning;

/// What an environment variable says about a file or a folder.
enum Setting {
    /// Nothing: the user's cache folder.
    Default,
    /// `off`.
    Off,
    /// A path.
    Path(std::path::PathBuf),
}

impl Setting {
    fn of(variable: &str) -> Self {
        match std::env::var_os(variable) {
            None => Setting::Default,
            Some(value) if value.is_empty() => Setting::Default,
            Some(value) if value == "off" => Setting::Off,
            Some(value) => Setting::Path(value.into()),
        }
    }
}
