//! The record of a device's driver before `bind`, in `/run/nvio/<address>`: two lines, `driver=`
//! and `override=`, each empty if the device had none.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::address::PciAddress;
use super::error::Error;
use super::sysfs::Sysfs;

/// The state of a device that `unbind` restores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// The driver, `None` if the device had none.
    pub(super) driver: Option<String>,
    /// The content of `driver_override`, `None` if there was none.
    pub(super) driver_override: Option<String>,
}

impl Sysfs {
    fn record_path(&self, address: PciAddress) -> PathBuf {
        self.path("run/nvio").join(address.to_string())
    }

    /// Writes the record atomically.
    pub(super) fn remember(&self, address: PciAddress, record: &Record) -> Result<(), Error> {
        let path = self.record_path(address);
        let dir = self.path("run/nvio");
        fs::create_dir_all(&dir).map_err(|error| Error::io("make the directory", &dir, error))?;
        let new = dir.join(format!("{address}.new"));
        let text = format!(
            "driver={}\noverride={}\n",
            record.driver.as_deref().unwrap_or_default(),
            record.driver_override.as_deref().unwrap_or_default(),
        );
        fs::write(&new, text).map_err(|error| Error::io("write", &new, error))?;
        fs::rename(&new, &path).map_err(|error| Error::io("write", &path, error))
    }

    /// Reads the record. `None` if there is none.
    pub(super) fn recall(&self, address: PciAddress) -> Result<Option<Record>, Error> {
        let path = self.record_path(address);
        let Some(text) = self.attribute(&path)? else { return Ok(None) };
        let mut record = Record::default();
        for line in text.lines() {
            let bad = || Error::malformed(&path, line, "driver=NAME or override=NAME");
            let (key, value) = line.split_once('=').ok_or_else(bad)?;
            // The name becomes part of a path.
            let fine = |c: char| c.is_ascii_alphanumeric() || "_-.+ ".contains(c);
            if !value.chars().all(fine) || value.starts_with('.') {
                return Err(bad());
            }
            let value = (!value.is_empty()).then(|| value.to_owned());
            match key {
                "driver" => record.driver = value,
                "override" => record.driver_override = value,
                _ => return Err(bad()),
            }
        }
        Ok(Some(record))
    }

    /// Removes the record.
    pub(super) fn forget(&self, address: PciAddress) -> Result<(), Error> {
        let path = self.record_path(address);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove", path, error))
            }
            _ => Ok(()),
        }
    }
}
