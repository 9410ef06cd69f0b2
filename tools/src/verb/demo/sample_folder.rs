//! The folder that `demo` reads if the user names none: files of many types, identical on every
//! machine.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use fastrand::Rng;

use crate::error::Error;
use crate::interrupt;

/// Small files: number, and largest size in bytes.
const SMALL: (u64, u64) = (400, 16 << 10);
/// Files of medium size: number, and largest size in bytes.
const MEDIUM: (u64, u64) = (40, 1 << 20);
/// Large files: number, and size in bytes, which is not a multiple of a block.
const LARGE: (u64, u64) = (2, (48 << 20) + 12_345);
/// Levels of nested directories.
const DEPTH: usize = 40;

/// Fills the empty directory `folder`.
///
/// # Errors
/// If a file cannot be created.
pub fn fill(folder: &Path) -> Result<(), Error> {
    // A fixed seed: files differ, runs do not.
    let mut random = Rng::with_seed(0x6e76_696f);
    for (name, (count, largest)) in [("small", SMALL), ("medium", MEDIUM)] {
        for number in 0..count {
            let group = format!("{name}/group-{:02}", number % 20);
            let path = folder.join(group).join(format!("{name}-{number:04}"));
            // Every tenth file has a whole number of blocks.
            let size = random.u64(..=largest);
            let size = if number % 10 == 0 { size & !4095 } else { size };
            write(&path, size, &mut random)?;
        }
    }
    for number in 0..LARGE.0 {
        write(&folder.join(format!("large/large-{number}")), LARGE.1, &mut random)?;
    }
    sparse(&folder.join("sparse/holes"), &mut random)?;
    write(&folder.join("sparse/empty"), 0, &mut random)?;
    let hole = create(&folder.join("sparse/nothing-but-a-hole"))?;
    hole.set_len((8 << 20) + 1).map_err(|error| Error::host("write", folder, error))?;
    deep(folder, &mut random)?;
    odd(folder, &mut random)
}

/// Creates a file with data of odd sizes between holes, and a hole at the end.
fn sparse(path: &Path, random: &mut Rng) -> Result<(), Error> {
    let file = create(path)?;
    let result = (0..64u64).try_for_each(|number| {
        let mut data = vec![0; usize::try_from(random.u64(1..=40_000)).unwrap_or(1)];
        random.fill(&mut data);
        file.write_all_at(&data, (number << 19) + random.u64(..60_000))
    });
    result
        .and_then(|()| file.set_len((64 << 19) + 999))
        .map_err(|error| Error::host("write", path, error))
}

fn deep(folder: &Path, random: &mut Rng) -> Result<(), Error> {
    let mut path = folder.join("deep");
    for level in 0..DEPTH {
        path.push(format!("level-{level:02}"));
        write(&path.join("file"), random.u64(..5000), random)?;
    }
    Ok(())
}

/// Creates unusual names and links.
fn odd(folder: &Path, random: &mut Rng) -> Result<(), Error> {
    let odd = folder.join("odd");
    for name in ["with blank", "ünïcødé-漢字", "new\nline", "-dash", ".hidden", &"n".repeat(255)]
    {
        write(&odd.join(name), random.u64(..3000), random)?;
    }
    let empty = odd.join("empty-directory");
    fs::create_dir(&empty).map_err(|error| Error::host("make", &empty, error))?;
    let long = format!("{}large/large-0", "../odd/".repeat(20));
    for (name, target) in [("short-link", "with blank"), ("long-link", &long), ("dangling", "none")]
    {
        let path = odd.join(name);
        symlink(target, &path).map_err(|error| Error::host("make", &path, error))?;
    }
    let second = odd.join("second-name");
    fs::hard_link(odd.join(".hidden"), &second).map_err(|error| Error::host("make", &second, error))
}

fn write(path: &Path, size: u64, random: &mut Rng) -> Result<(), Error> {
    let file = create(path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    while done < size {
        let part = usize::try_from(size - done).unwrap_or(usize::MAX).min(buffer.len());
        random.fill(&mut buffer[..part]);
        file.write_all_at(&buffer[..part], done)
            .map_err(|error| Error::host("write", path, error))?;
        done += part as u64;
    }
    Ok(())
}

fn create(path: &Path) -> Result<File, Error> {
    let parent: PathBuf = path.parent().map(Path::to_owned).unwrap_or_default();
    // A folder that a signal has removed is not created again.
    let _no_signal = interrupt::hold();
    fs::create_dir_all(parent)
        .and_then(|()| File::create_new(path))
        .map_err(|error: io::Error| Error::host("make", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_folder_is_as_large_as_promised_and_has_holes() {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path()).unwrap();
        let (mut bytes, mut files) = (0, 0);
        let mut directories = vec![folder.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                let meta = entry.metadata().unwrap();
                if meta.is_dir() {
                    directories.push(entry.path());
                } else if meta.is_file() {
                    bytes += meta.len();
                    files += 1;
                }
            }
        }
        assert!((100_000_000..200_000_000).contains(&bytes), "{bytes}");
        assert_eq!(files, 400 + 40 + 2 + 3 + 40 + 7);
        let sparse = fs::metadata(folder.path().join("sparse/holes")).unwrap();
        assert!(sparse.blocks() * 512 < sparse.len() / 2);
    }
}
