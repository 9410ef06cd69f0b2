//! Makes the image of a row.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::Row;
use nvio_testkit::image::{self, Mount, text, tool};

/// Something that is done to an image.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// It is mounted with these options, and the function makes a tree.
    Mounted(&'static str, fn(&Path) -> io::Result<()>),
    /// As `Mounted`, but what remains is a copy of the image, taken while it is mounted and the
    /// files are open that the function returns.
    Dirty(&'static str, fn(&Path) -> io::Result<Vec<File>>),
    /// It is changed as a file, or by programs.
    Image(fn(&Made) -> io::Result<()>),
    /// mke2fs is run again, with a folder that the function has filled.
    Folder(fn(&Path) -> io::Result<()>),
}

/// An image that was made, in a folder of its own.
#[derive(Debug)]
pub struct Made {
    folder: TempDir,
    row: Row,
}

impl Made {
    /// Makes the image of `row`.
    pub fn new(row: &Row) -> io::Result<Self> {
        let folder = image::work_folder("nvio-matrix-");
        let made = Self { folder, row: *row };
        // A row without a size makes its image itself.
        if row.mib > 0 {
            made.mkfs(&[]);
        }
        for step in row.steps {
            match *step {
                Step::Mounted(options, fill) => {
                    let mount = made.mount(&made.image(), options);
                    fill(mount.path())?;
                    mount.unmount()?;
                }
                Step::Dirty(options, fill) => made.copied(options, fill)?,
                Step::Image(change) => change(&made)?,
                Step::Folder(fill) => {
                    fs::create_dir(made.source())?;
                    fill(&made.source())?;
                    made.mkfs(&["-d", text(&made.source())]);
                }
            }
        }
        Ok(made)
    }

    /// The image.
    pub fn image(&self) -> PathBuf {
        self.path("disk.img")
    }

    /// The device of the journal, if that is not in the image.
    pub fn journal(&self) -> Option<PathBuf> {
        Some(self.path("disk.journal")).filter(|path| path.exists())
    }

    /// The folder that the image is made of, if it is made of one.
    pub fn source(&self) -> PathBuf {
        self.path("source")
    }

    /// A place in the folder of the image.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Mounts an image of this folder; by default access times stay as they are.
    pub fn mount(&self, image: &Path, options: &str) -> Mount {
        let comma = if options.is_empty() { "" } else { "," };
        Mount::new(image, &self.path("mnt"), &format!("noatime{comma}{options}"))
    }

    /// Makes an empty image, and runs mke2fs with the options of the row and `more`.
    pub fn mkfs(&self, more: &[&str]) {
        let image = self.image();
        let _ = fs::remove_file(&image);
        File::create(&image)
            .and_then(|file| file.set_len(self.row.mib << 20))
            .expect("an image file");
        self.mkfs_here(more);
    }

    /// Runs mke2fs on the image as it is.
    pub fn mkfs_here(&self, more: &[&str]) {
        let image = self.image();
        let options: Vec<&str> = self.row.mkfs.split_whitespace().collect();
        let mut args = vec!["-q", "-F"];
        if !options.contains(&"-t") {
            args.extend(["-t", "ext4"]);
        }
        // Nothing is left for a kernel to initialise later, unless the row is about that.
        if !options.contains(&"-E") {
            args.extend(["-E", "lazy_itable_init=0,lazy_journal_init=0"]);
        }
        args.extend(&options);
        args.extend(more);
        args.push(text(&image));
        tool("mke2fs", &args);
    }

    /// Has debugfs do what the lines say; it must not complain.
    pub fn debugfs(&self, lines: &[&str]) {
        image::debugfs(&self.image(), lines);
    }

    /// [`Step::Dirty`].
    pub fn copied(
        &self,
        options: &str,
        fill: fn(&Path) -> io::Result<Vec<File>>,
    ) -> io::Result<()> {
        let (image, copy) = (self.image(), self.path("copy.img"));
        let mount = self.mount(&image, options);
        let open = fill(mount.path())?;
        self.copy(&image, &copy);
        assert!(image::needs_recovery(&copy)?, "{}: nothing to recover", self.row.name);
        if let Some(journal) = self.journal() {
            self.copy(&journal, &self.path("copy.journal"));
        }
        drop(open);
        mount.unmount()?;
        if let Some(journal) = self.journal() {
            fs::rename(self.path("copy.journal"), journal)?;
        }
        fs::rename(copy, image)
    }

    /// Copies an image; what is all zero takes no room.
    pub fn copy(&self, from: &Path, to: &Path) {
        tool("cp", &["--sparse=always", text(from), text(to)]);
    }
}
