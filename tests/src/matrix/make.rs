//! Creation of the image of a row.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use nvio_testkit::image::{self, Mount, text, tool};

/// A step in the creation of an image.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// Mount it with these options and create a tree.
    Mounted(&'static str, fn(&Path) -> io::Result<()>),
    /// Like `Mounted`, but keep a copy of the image that is made while it is mounted and the
    /// returned files are open.
    Dirty(&'static str, fn(&Path) -> io::Result<Vec<File>>),
    /// Change it as a file, or with programs.
    Image(fn(&Made) -> io::Result<()>),
    /// Run mke2fs again with a folder that the function has filled.
    Folder(fn(&Path) -> io::Result<()>),
}

/// One image of the matrix.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Name of the image, of its test, and in `ext4-rows.md`.
    pub name: &'static str,
    /// Size in MiB.
    pub mib: u64,
    /// Options of mke2fs.
    pub mkfs: &'static str,
    /// Steps after mke2fs, in order.
    pub steps: &'static [Step],
    /// Source of the expected tree.
    pub oracle: Oracle,
}

/// The source of the expected tree.
#[derive(Debug, Clone, Copy)]
pub enum Oracle {
    /// The kernel, through a read-only mount of the image itself.
    Kernel,
    /// The kernel, through a mount of a copy that it may recover. `nvio` reads the original image.
    Recovered,
    /// debugfs, and the folder that the image was created from, for images that this kernel cannot
    /// mount.
    Offline,
    /// None: the image is rejected with a line that contains all of these words.
    Refused(&'static [&'static str]),
}

/// A created image in a folder of its own.
#[derive(Debug)]
pub struct Made {
    folder: TempDir,
    row: Row,
}

impl Made {
    /// Creates the image of `row`.
    pub fn new(row: &Row) -> io::Result<Self> {
        let folder = image::work_folder("nvio-matrix-");
        let made = Self { folder, row: *row };
        // A row without a size creates its image itself.
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

    /// Returns the path of the image.
    pub fn image(&self) -> PathBuf {
        self.path("disk.img")
    }

    /// Returns the path of the journal's device, if the journal is external.
    pub fn journal(&self) -> Option<PathBuf> {
        Some(self.path("disk.journal")).filter(|path| path.exists())
    }

    /// Returns the folder whose contents the image is created from.
    pub fn source(&self) -> PathBuf {
        self.path("source")
    }

    /// Returns a path in the folder of the image.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Mounts an image of this folder, without updates of access times.
    pub fn mount(&self, image: &Path, options: &str) -> Mount {
        let comma = if options.is_empty() { "" } else { "," };
        Mount::new(image, &self.path("mnt"), &format!("noatime{comma}{options}"))
    }

    /// Creates an empty image, and runs mke2fs with the options of the row and `more`.
    pub fn mkfs(&self, more: &[&str]) {
        let image = self.image();
        let _ = fs::remove_file(&image);
        File::create(&image)
            .and_then(|file| file.set_len(self.row.mib << 20))
            .expect("an image file");
        self.mkfs_here(more);
    }

    /// Runs mke2fs on the existing image.
    pub fn mkfs_here(&self, more: &[&str]) {
        let image = self.image();
        let options: Vec<&str> = self.row.mkfs.split_whitespace().collect();
        let mut args = vec!["-q", "-F"];
        if !options.contains(&"-t") {
            args.extend(["-t", "ext4"]);
        }
        // The kernel need not initialise anything later, unless the row tests that.
        if !options.contains(&"-E") {
            args.extend(["-E", "lazy_itable_init=0,lazy_journal_init=0"]);
        }
        args.extend(&options);
        args.extend(more);
        args.push(text(&image));
        tool("mke2fs", &args);
    }

    /// Runs commands in debugfs, which must not report errors.
    pub fn debugfs(&self, lines: &[&str]) {
        image::debugfs(&self.image(), lines);
    }

    /// Executes [`Step::Dirty`].
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

    /// Copies an image as a sparse file.
    pub fn copy(&self, from: &Path, to: &Path) {
        tool("cp", &["--sparse=always", text(from), text(to)]);
    }
}
