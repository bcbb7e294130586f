//! Commands that describe the program: its API, its completions, its manual pages.

use std::path::Path;

use anyhow::Context;
use clap::{CommandFactory, ValueEnum};

use super::{Cli, output};
use crate::app;
use crate::config::Config;

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Listener {
    /// The customers' API
    Customers,
    /// The staff's API
    Staff,
    /// Both in one document
    Both,
}

pub(super) fn openapi(listener: Listener) -> anyhow::Result<()> {
    let [customers, staff] = app::openapi(&Config::load(None)?)?;
    let api = match listener {
        Listener::Customers => customers,
        Listener::Staff => staff,
        Listener::Both => {
            let mut both = staff.merge_from(customers);
            "Odyssey".clone_into(&mut both.info.title);
            both.info.description =
                Some("Customers' and staff's listeners in one document.".to_owned());
            both
        }
    };
    output::print(&(api.to_pretty_json()? + "\n"))
}

pub(super) fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "odyssey", &mut script);
    output::print(&String::from_utf8(script)?)
}

pub(super) fn man(dir: Option<&Path>) -> anyhow::Result<()> {
    if let Some(dir) = dir {
        return std::fs::create_dir_all(dir)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
            .with_context(|| format!("cannot write the manual pages to {}", dir.display()));
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    output::print(&String::from_utf8(page)?)
}
