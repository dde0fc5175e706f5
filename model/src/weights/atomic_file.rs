use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::WeightsError;

/// A file that appears whole or not at all: written beside its place, flushed to disk, then renamed.
pub struct AtomicFile {
    path: PathBuf,
    file: BufWriter<tempfile::NamedTempFile>,
}

impl AtomicFile {
    /// Starts writing what is to become `path`; its folder must exist.
    pub fn create(path: &Path) -> Result<Self, WeightsError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = tempfile::Builder::new().prefix(&format!(".{name}.")).tempfile_in(folder(path));
        let temporary = temporary.map_err(WeightsError::io(path, "creating a temporary file beside it"))?;
        Ok(Self { path: path.to_owned(), file: BufWriter::with_capacity(1 << 20, temporary) })
    }

    /// The file that is to appear.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file appear.
    pub fn commit(self) -> Result<(), WeightsError> {
        let Self { path, file } = self;
        let temporary = file.into_inner().map_err(|e| WeightsError::io(&path, "writing")(e.into_error()))?;
        // a temporary file is private to its owner; what becomes of it is for everyone whom the umask lets
        set_usual_permissions(temporary.as_file()).map_err(WeightsError::io(&path, "setting permissions"))?;
        temporary.as_file().sync_all().map_err(WeightsError::io(&path, "flushing to disk"))?;
        temporary.persist(&path).map_err(|e| WeightsError::io(&path, "renaming")(e.error))?;
        // the new name is on disk once its folder is
        let folder = File::open(folder(&path)).and_then(|folder| folder.sync_all());
        folder.map_err(WeightsError::io(&path, "flushing its folder to disk"))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(unix)]
fn set_usual_permissions(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn set_usual_permissions(_: &File) -> std::io::Result<()> {
    Ok(())
}
