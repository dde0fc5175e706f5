//! The processes of a run: MPI for rendezvous, agreement and host data.

use anyhow::{anyhow, Context, Result};
use mpi::datatype::PartitionMut;
use mpi::environment::Universe;
use mpi::point_to_point::{Destination, Source};
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::CommunicatorCollectives;
use mpi::Threading;

/// Messages are sent in pieces of so many bytes: MPI counts in 32 bits.
const PIECE_BYTES: usize = 1 << 30;

/// An error that every rank knows of and that rank 0 has printed.
#[derive(Debug, thiserror::Error)]
#[error("the ranks did not agree")]
pub struct Reported;

/// All processes of the run, one a host.
pub struct World {
    comm: SimpleCommunicator,
    rank: usize,
    size: usize,
}

impl World {
    /// Joins the other processes; the returned universe leaves them when it is dropped, which must come last.
    pub fn join() -> Result<(Universe, Self)> {
        let (universe, threading) = mpi::initialize_with_threading(Threading::Multiple)
            .context("MPI is already initialized in this process")?;
        if threading < Threading::Multiple {
            return Err(anyhow!("this MPI does not allow calls from several threads (MPI_THREAD_MULTIPLE)"));
        }
        let comm = universe.world();
        let (rank, size) = (comm.rank() as usize, comm.size() as usize);
        Ok((universe, Self { comm, rank, size }))
    }

    /// Number of processes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether this process speaks for all and writes the results.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// What every rank gives, by rank.
    pub fn all_gather(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        // never empty: the address of an empty slice may be the one that means MPI_IN_PLACE
        let bytes = [&[0], bytes].concat();
        let mut counts = vec![0i32; self.size];
        self.comm.all_gather_into(&(bytes.len() as i32), &mut counts[..]);
        let displacements: Vec<i32> = counts
            .iter()
            .scan(0, |end, n| {
                let start = *end;
                *end += n;
                Some(start)
            })
            .collect();
        let mut all = vec![0u8; counts.iter().map(|&n| n as usize).sum()];
        self.comm.all_gather_varcount_into(
            &bytes[..],
            &mut PartitionMut::new(&mut all[..], &counts[..], &displacements[..]),
        );
        let mut rest = &all[..];
        counts
            .iter()
            .map(|&n| {
                let (own, others) = rest.split_at(n as usize);
                rest = others;
                own[1..].to_vec()
            })
            .collect()
    }

    /// The largest of the ranks' values.
    pub fn max(&self, value: u64) -> u64 {
        let all = self.all_gather(bytemuck::bytes_of(&value));
        all.iter().map(|bytes| bytemuck::pod_read_unaligned(bytes)).max().unwrap_or(value)
    }

    /// Ends a phase that every rank goes through: fails on all ranks if it failed on any, after rank 0 has said where
    /// and why.
    pub fn agree<T>(&self, phase: Result<T>) -> Result<T> {
        let problem = phase.as_ref().err().map(|e| format!("{e:#}")).unwrap_or_default();
        let problems: Vec<String> =
            self.all_gather(problem.as_bytes()).iter().map(|b| String::from_utf8_lossy(b).into_owned()).collect();
        let failed: Vec<usize> = (0..self.size).filter(|&r| !problems[r].is_empty()).collect();
        let Some(&first) = failed.first() else { return phase };
        if self.is_first() {
            let everywhere = failed.len() == self.size && problems.windows(2).all(|w| w[0] == w[1]);
            match everywhere {
                true => eprintln!("error: {}", problems[first]),
                false => failed.iter().for_each(|&r| eprintln!("error: rank {r} of {}: {}", self.size, problems[r])),
            }
        }
        Err(Reported.into())
    }

    /// Fails on all ranks unless all give the same `value`; `what` names it.
    pub fn same(&self, what: &str, value: &str) -> Result<()> {
        let values = self.all_gather(value.as_bytes());
        let other = values.iter().position(|v| v != &values[0]);
        self.agree(match other {
            Some(rank) => {
                let show = |v: &[u8]| String::from_utf8_lossy(v).chars().take(200).collect::<String>();
                Err(anyhow!(
                    "{what} differs between hosts: rank 0 has {:?}, rank {rank} has {:?}; give all hosts the same",
                    show(&values[0]),
                    show(&values[rank])
                ))
            }
            None => Ok(()),
        })
    }

    /// Sends `bytes` to rank `to`.
    pub fn send(&self, to: usize, bytes: &[u8]) {
        let peer = self.comm.process_at_rank(to as i32);
        peer.send(&(bytes.len() as u64));
        bytes.chunks(PIECE_BYTES).for_each(|piece| peer.send(piece));
    }

    /// Receives what rank `from` sends.
    pub fn receive(&self, from: usize) -> Vec<u8> {
        let peer = self.comm.process_at_rank(from as i32);
        let (len, _) = peer.receive::<u64>();
        let mut bytes = vec![0u8; len as usize];
        bytes.chunks_mut(PIECE_BYTES).for_each(|piece| {
            peer.receive_into(piece);
        });
        bytes
    }

    /// Ends all processes at once: this rank cannot go on, and the others wait for it.
    pub fn abort(&self, error: &anyhow::Error) -> ! {
        match self.size {
            1 => eprintln!("error: {error:#}"),
            size => eprintln!("error: rank {} of {size}: {error:#}", self.rank),
        }
        self.comm.abort(1)
    }
}
