use super::*;

/// Counts the entries of a folder, including hidden files.
fn count(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_file_is_replaced_atomically() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.tack");
    write_file(&path, b"first").unwrap();
    write_file(&path, b"second").unwrap();
    let mut given_up = AtomicFile::new(&path).unwrap();
    given_up.write_all(b"third").unwrap();
    drop(given_up);
    assert_eq!(fs::read(&path).unwrap(), b"second");
    assert_eq!(count(folder.path()), 1, "no temporary file is left");
    // The output path is a folder.
    let taken = folder.path().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("inside"), b"kept").unwrap();
    let error = write_file(&taken, b"third").unwrap_err().to_string();
    assert!(error.contains("taken: cannot be written: is a directory"), "{error}");
    assert_eq!(fs::read(taken.join("inside")).unwrap(), b"kept");
    let missing = folder.path().join("no/such/model.tack");
    for error in [write_file(&missing, b"x").unwrap_err(), check_output(&missing).unwrap_err()] {
        let WriteError::NoFolder { folder: named, .. } = &error else { panic!("{error}") };
        assert_eq!(*named, folder.path().join("no/such"));
        let expected = "no/such/model.tack: the folder ";
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert!(check_output(&path.join("model.tack")).is_err());
    for path in [folder.path().join("new/"), "".into(), folder.path().join("..")] {
        assert!(matches!(check_output(&path), Err(WriteError::Write { .. })), "{path:?}");
    }
    assert_eq!(count(folder.path()), 2);
}

#[cfg(target_os = "linux")]
#[test]
fn an_incomplete_file_has_no_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = AtomicFile::new(&folder.path().join("model.tack")).unwrap();
    file.write_all(b"half").unwrap();
    file.flush().unwrap();
    if file.name.is_none() {
        assert_eq!(count(folder.path()), 0, "a killed process leaves nothing");
    }
    assert!(file.room().is_some_and(|room| room > 0));
    file.put().unwrap();
    assert_eq!(count(folder.path()), 1);
}

#[test]
fn named_temporary_files_work_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.tack");
    let (file, name) = temporary(0o666).tempfile_in(folder.path()).unwrap().into_parts();
    let place = Place::of(&path).unwrap();
    let mut file = AtomicFile { file: BufWriter::new(file), name: Some(name), place };
    file.write_all(b"whole").unwrap();
    file.put().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"whole");
    assert_eq!(count(folder.path()), 1);
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn devices_pipes_and_sockets_are_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let [pipe, socket, link] = ["pipe", "socket", "link"].map(|name| folder.path().join(name));
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let _listener = UnixListener::bind(&socket).unwrap();
        symlink(&pipe, &link).unwrap();
        for (path, is) in [
            (&pipe, "is a pipe, not a file; give the name of a file"),
            (&socket, "is a socket, not a file"),
            (&link, "is a pipe, not a file"),
            (&"/dev/null".into(), "/dev/null: is a character device, not a file"),
        ] {
            for error in [write_file(path, b"x").unwrap_err(), check_output(path).unwrap_err()] {
                assert!(matches!(error, WriteError::NotAFile { .. }));
                assert!(error.to_string().contains(is), "{error}");
            }
        }
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
        assert!(fs::symlink_metadata(&socket).unwrap().file_type().is_socket());
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        assert_eq!(count(folder.path()), 3);
    }

    #[test]
    fn links_are_kept_and_their_targets_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("store")).unwrap();
        fs::write(at("store/model-1.tack"), b"old").unwrap();
        // A relative link, a link to a link, and a dangling link.
        symlink("store/model-1.tack", at("current.tack")).unwrap();
        symlink("current.tack", at("alias.tack")).unwrap();
        symlink("store/model-2.tack", at("next.tack")).unwrap();
        write_file(&at("alias.tack"), b"new").unwrap();
        write_file(&at("next.tack"), b"two").unwrap();
        assert_eq!(fs::read(at("store/model-1.tack")).unwrap(), b"new");
        assert_eq!(fs::read(at("store/model-2.tack")).unwrap(), b"two");
        for name in ["current.tack", "alias.tack", "next.tack"] {
            assert!(fs::symlink_metadata(at(name)).unwrap().is_symlink(), "{name}");
        }
        assert_eq!((count(folder.path()), count(&at("store"))), (4, 2));
        // A link among the folders of the path.
        symlink("store", at("shelf")).unwrap();
        write_file(&at("shelf/model-3.tack"), b"three").unwrap();
        assert_eq!(fs::read(at("store/model-3.tack")).unwrap(), b"three");
        // A cycle of links.
        symlink("b", at("a")).unwrap();
        symlink("a", at("b")).unwrap();
        assert!(matches!(write_file(&at("a"), b"x"), Err(WriteError::Write { .. })));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn untrusted_links_in_world_writable_folders_are_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let [shelf, mine, theirs, target] =
            ["shelf", "shelf/mine", "shelf/theirs", "target"].map(|name| folder.path().join(name));
        fs::create_dir(&shelf).unwrap();
        fs::set_permissions(&shelf, fs::Permissions::from_mode(0o1777)).unwrap();
        fs::write(&target, b"kept").unwrap();
        symlink(&target, &mine).unwrap();
        symlink(&target, &theirs).unwrap();
        write_file(&mine, b"new").unwrap();
        // Only root can change the owner of a link.
        if std::os::unix::fs::lchown(&theirs, Some(65534), None).is_err() {
            return;
        }
        let error = write_file(&theirs, b"x").unwrap_err().to_string();
        assert!(error.contains("a symbolic link of another user"), "{error}");
        assert_eq!(fs::read(&target).unwrap(), b"new");
        // Outside world-writable folders, the link is followed.
        fs::set_permissions(&shelf, fs::Permissions::from_mode(0o755)).unwrap();
        write_file(&theirs, b"x").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"x");
    }

    #[test]
    fn permissions_are_kept_or_follow_the_umask() {
        let folder = tempfile::tempdir().unwrap();
        let [new, plain] = ["new", "plain"].map(|name| folder.path().join(name));
        fs::write(&plain, b"").unwrap();
        write_file(&new, b"x").unwrap();
        assert_eq!(mode(&new), mode(&plain), "as any new file");
        for kept in [0o600, 0o640, 0o755, 0o444] {
            fs::set_permissions(&new, fs::Permissions::from_mode(kept)).unwrap();
            write_file(&new, b"y").unwrap();
            assert_eq!(mode(&new), kept);
        }
        // The setuid bit is cleared, as by any write.
        fs::set_permissions(&new, fs::Permissions::from_mode(0o4755)).unwrap();
        write_file(&new, b"z").unwrap();
        assert_eq!(mode(&new), 0o755);
    }
}
