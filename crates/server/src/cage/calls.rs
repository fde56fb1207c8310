//! The system calls that a caged program is refused (seccomp).
//!
//! A list of what is forbidden, answered with `EPERM`, rather than a list of what is allowed: decoders, C libraries and drivers for
//! graphics use a hundred harmless calls that differ from version to version, and a film that ends in a crash on somebody's machine
//! is worse than a harmless call too many. Two things keep such a list from ageing. Calls younger than the list are answered as an older
//! kernel would (`ENOSYS`), which every program must be ready for; so are the second set of numbers that x86-64 kernels may know (x32).
//! And nothing here stands alone: files and ports are Landlock's, privileges are gone, limits are set.
//!
//! What this list cannot do: tell by whom `execve` is called. The one that starts the program comes after the filter, so it has to be
//! allowed; which files may be executed is told to Landlock, and whatever is executed stays in the same cage, with no way to fork.

use std::collections::BTreeMap;

use nix::libc::{self, c_long};
use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, sock_filter};

/// The youngest system call that this list was written for (`mseal`, Linux 6.10). From 424 on numbers are the same on all processors.
const YOUNGEST: u32 = 462;

/// `fchmodat2`, which not all C libraries have a name for.
const FCHMODAT2: c_long = 452;

/// Sends data with the first packet of a connection, past the check of where `connect` leads (`linux/socket.h`).
const MSG_FASTOPEN: u64 = 0x2000_0000;

/// Calls of which the program has no need in any form.
const NEVER: &[c_long] = &[
    // Other processes: starting them, looking into them, ending them, escaping from the group that is ended with the lease.
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kcmp,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_setsid,
    libc::SYS_setpgid,
    // Being reached, and talking in ways that Landlock does not look at.
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_mq_open,
    // What Landlock lets pass on files that can be named: rights, owners, times, attributes, handles.
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_memfd_secret,
    // Other views of the file system.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    // Who it is.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    // Keys, the kernel itself, the machine.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_syslog,
    libc::SYS_personality,
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
];

/// Calls of old that newer processors do without.
#[cfg(target_arch = "x86_64")]
const NEVER_OF_OLD: &[c_long] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_modify_ldt,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_uselib,
    libc::SYS_kexec_file_load,
];
#[cfg(not(target_arch = "x86_64"))]
const NEVER_OF_OLD: &[c_long] = &[];

/// Calls that change what lies on the disk; refused where the program is given no folder to write to.
const WRITING: &[c_long] = &[
    libc::SYS_truncate,
    libc::SYS_fallocate,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
];
#[cfg(target_arch = "x86_64")]
const WRITING_OF_OLD: &[c_long] = &[
    libc::SYS_creat,
    libc::SYS_mkdir,
    libc::SYS_mknod,
    libc::SYS_symlink,
    libc::SYS_link,
    libc::SYS_unlink,
    libc::SYS_rmdir,
    libc::SYS_rename,
];
#[cfg(not(target_arch = "x86_64"))]
const WRITING_OF_OLD: &[c_long] = &[];

/// Memory with a name and a length, which drivers of graphics cards share with them; refused everybody else.
const SHARING: &[c_long] = &[libc::SYS_memfd_create, libc::SYS_ftruncate];

/// Calls whose arguments lie in memory, where no filter can look: the C library falls back to their elder siblings, whose flags can be
/// judged.
const AS_IF_UNKNOWN: &[c_long] = &[libc::SYS_clone3, libc::SYS_openat2];

/// What is told to the filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// The program is given a folder to write to.
    pub(super) writes: bool,
    /// No Landlock watches over what is opened: then nothing may be opened that would be made or emptied thereby. Else that would
    /// only refuse what is harmless, such as a shell's `>/dev/null`.
    pub(super) unwatched: bool,
    /// The program is given graphics cards.
    pub(super) graphics: bool,
}

/// The filters for process `own`.
///
/// # Errors
/// Where this kind of processor is not known to the filter's compiler.
pub(super) fn filters(own: u32, asked: Asked) -> Result<[BpfProgram; 3], seccompiler::Error> {
    let mut forbidden: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let (writing, writing_of_old) = if asked.writes { (&[][..], &[][..]) } else { (WRITING, WRITING_OF_OLD) };
    let sharing = match (asked.graphics, asked.writes) {
        (true, _) => &[][..],
        (false, true) => &[libc::SYS_memfd_create][..],
        (false, false) => SHARING,
    };
    for call in NEVER.iter().chain(NEVER_OF_OLD).chain(writing).chain(writing_of_old).chain(sharing) {
        forbidden.insert(*call, Vec::new());
    }
    for (call, conditions) in judged(own, asked) {
        let rule = SeccompRule::new(conditions.into_iter().collect::<Result<_, _>>()?)?;
        forbidden.entry(call).or_default().push(rule);
    }
    let unknown = AS_IF_UNKNOWN.iter().map(|call| (*call, Vec::new())).collect();
    Ok([refuse(forbidden, libc::EPERM)?, refuse(unknown, libc::ENOSYS)?, no_younger_calls()])
}

fn refuse(calls: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<BpfProgram, seccompiler::Error> {
    let arch = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(calls, SeccompAction::Allow, SeccompAction::Errno(errno.unsigned_abs()), arch)?.try_into()?)
}

type Condition = Result<SeccompCondition, seccompiler::BackendError>;

/// Argument number `at`, of which the lower 32 bits count: the kernel reads these as `int`.
fn argument(at: u8, how: SeccompCmpOp, value: u64) -> Condition {
    SeccompCondition::new(at, SeccompCmpArgLen::Dword, how, value)
}

fn is(at: u8, value: u64) -> Condition {
    argument(at, SeccompCmpOp::Eq, value)
}

fn is_not(at: u8, value: u64) -> Condition {
    argument(at, SeccompCmpOp::Ne, value)
}

/// All bits of `flag` are set.
fn has(at: u8, flag: u64) -> Condition {
    argument(at, SeccompCmpOp::MaskedEq(flag), flag)
}

/// Calls that are refused for what they ask: all conditions of an entry hold.
fn judged(own: u32, asked: Asked) -> Vec<(c_long, Vec<Condition>)> {
    let own = u64::from(own);
    let mut list = vec![
        // Threads, not processes.
        (libc::SYS_clone, vec![argument(0, SeccompCmpOp::MaskedEq(bits(libc::CLONE_THREAD)), 0)]),
        // Signals and limits for itself only.
        (libc::SYS_kill, vec![is_not(0, own)]),
        (libc::SYS_tgkill, vec![is_not(0, own)]),
        (libc::SYS_prlimit64, vec![is_not(0, 0), is_not(0, own)]),
        (libc::SYS_prctl, vec![is(0, bits(libc::PR_SET_PDEATHSIG))]),
        // TCP over IPv4 and IPv6. Landlock does not look at UDP, nor at the protocols that only look like TCP (MPTCP, SMC).
        (libc::SYS_socket, vec![is_not(0, bits(libc::AF_INET)), is_not(0, bits(libc::AF_INET6))]),
        (libc::SYS_socket, vec![is_not(2, 0), is_not(2, bits(libc::IPPROTO_TCP))]),
        (libc::SYS_sendto, vec![has(3, MSG_FASTOPEN)]),
        (libc::SYS_sendmsg, vec![has(2, MSG_FASTOPEN)]),
        (libc::SYS_sendmmsg, vec![has(3, MSG_FASTOPEN)]),
        (libc::SYS_setsockopt, vec![is(1, bits(libc::IPPROTO_TCP)), is(2, bits(libc::TCP_ULP))]),
    ];
    let namespaces = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    list.extend(namespaces.map(|flag| (libc::SYS_clone, vec![has(0, bits(flag))])));
    // `SOCK_TYPE_MASK` has four bits; a stream is 1, and 0 is none.
    let no_streams = (2..16).map(|kind| (libc::SYS_socket, vec![argument(1, SeccompCmpOp::MaskedEq(0xf), kind)]));
    list.extend(no_streams);
    // Words put into a terminal's mouth (TIOCSTI, TIOCLINUX), terminals taken (TIOCCONS, TIOCSCTTY), signals sent by way of a file's owner
    // (FIOSETOWN, SIOCSPGRP; F_SETOWN, F_SETSIG, F_SETOWN_EX). These numbers are the same on both processors, their types are not.
    list.extend([0x5412, 0x541c, 0x541d, 0x540e, 0x8901, 0x8902].map(|tell| (libc::SYS_ioctl, vec![is(1, tell)])));
    list.extend([8, 10, 15].map(|order| (libc::SYS_fcntl, vec![is(1, order)])));
    if asked.unwatched && !asked.writes {
        for flag in [libc::O_CREAT, libc::O_TRUNC, libc::O_TMPFILE] {
            list.push((libc::SYS_openat, vec![has(2, bits(flag))]));
            #[cfg(target_arch = "x86_64")]
            list.push((libc::SYS_open, vec![has(1, bits(flag))]));
        }
    }
    list
}

fn bits(flag: i32) -> u64 {
    u64::from(flag.cast_unsigned())
}

/// Numbers above the list's are unknown: four instructions of the kernel's packet filter, which the compiler has no words for.
/// The number stands at offset 0 of `seccomp_data`; the set of numbers was checked by the filters before.
fn no_younger_calls() -> BpfProgram {
    let step = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    vec![
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, 0, 1, YOUNGEST),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs()),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile_and_fit() {
        let all = [(false, false), (false, true), (true, false), (true, true)];
        for (writes, unwatched, graphics) in all.into_iter().flat_map(|(a, b)| [(a, b, false), (a, b, true)]) {
            let filters = filters(4242, Asked { writes, unwatched, graphics }).expect("compiled");
            // BPF_MAXINSNS of the kernel.
            assert!(filters.iter().all(|filter| (4..4096).contains(&filter.len())), "{:?}", filters.map(|filter| filter.len()));
        }
    }

    #[test]
    fn every_call_of_the_list_is_older_than_what_is_refused_for_its_youth() {
        let all = NEVER.iter().chain(NEVER_OF_OLD).chain(WRITING).chain(WRITING_OF_OLD).chain(SHARING).chain(AS_IF_UNKNOWN);
        assert!(all.clone().all(|call| (0..=c_long::from(YOUNGEST)).contains(call)));
        let mut sorted: Vec<_> = all.collect();
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|pair| pair[0] != pair[1]), "a call stands there twice");
    }
}
