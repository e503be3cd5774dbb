//! A `SHOAL_*` variable that no flag knows is an error: a misspelt `SHOAL_CACHE_SIZ` that is
//! silently ignored is a server that runs with settings nobody chose.
//!
//! Kubernetes injects variables of its own for every Service, and a Service named `shoal` gives
//! `SHOAL_SERVICE_HOST`, `SHOAL_PORT`, `SHOAL_PORT_8080_TCP` and so on. These are passed over.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::CommandFactory;

use super::args::Cli;

const PREFIX: &str = "SHOAL_";

/// Variables that begin like ours and mean nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown environment variable{plural} {names}: unset {it}, or write one of {known}",
    plural = if unknown.len() == 1 { "" } else { "s" },
    it = if unknown.len() == 1 { "it" } else { "them" },
    names = unknown.join(", "),
    known = known.join(", ")
)]
pub struct UnknownVariables {
    pub unknown: Vec<String>,
    pub known: Vec<String>,
}

/// Checks the names of `variables`, in practice those of [`std::env::vars_os`].
pub fn check(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<(), UnknownVariables> {
    let known = known_variables();
    let unknown: BTreeSet<String> = variables
        .into_iter()
        .map(|(name, _)| name.to_string_lossy().into_owned())
        .filter(|name| name.starts_with(PREFIX) && !known.contains(name) && !is_service_link(name))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(UnknownVariables { unknown: unknown.into_iter().collect(), known: known.into_iter().collect() })
}

/// Every variable that any flag of any command reads.
fn known_variables() -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    collect_variables(&Cli::command(), &mut known);
    known
}

fn collect_variables(command: &clap::Command, known: &mut BTreeSet<String>) {
    let variables = command.get_arguments().filter_map(|argument| argument.get_env());
    known.extend(variables.map(|name| name.to_string_lossy().into_owned()));
    for subcommand in command.get_subcommands() {
        collect_variables(subcommand, known);
    }
}

/// Whether Kubernetes makes such a name for a Service whose name begins with `shoal`. None of our
/// own variables may have this form.
fn is_service_link(name: &str) -> bool {
    let port_number_follows = |(_, rest): (&str, &str)| rest.starts_with(|c: char| c.is_ascii_digit());
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.ends_with("_PORT")
        || name.split_once("_PORT_").is_some_and(port_number_follows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_names(names: &[&str]) -> Result<(), UnknownVariables> {
        check(names.iter().map(|name| (OsString::from(name), OsString::from("x"))))
    }

    #[test]
    fn the_variables_of_all_flags_are_known() {
        let names = ["SHOAL_STORE", "SHOAL_CONFIG", "SHOAL_WINDOW", "SHOAL_DATA_DIR", "SHOAL_ADMIN_URL"];
        assert_eq!(check_names(&names), Ok(()));
        assert_eq!(check_names(&["SHOAL_AUTH_TOKEN", "PATH", "SHOALS"]), Ok(()));
    }

    #[test]
    fn a_misspelt_variable_is_named() {
        let error = check_names(&["SHOAL_STORE", "SHOAL_CACHE_SIZ"]).expect_err("misspelt");
        assert_eq!(error.unknown, ["SHOAL_CACHE_SIZ"]);
        let message = error.to_string();
        assert!(message.starts_with("unknown environment variable SHOAL_CACHE_SIZ: unset it"), "{message}");
        assert!(message.contains("SHOAL_CACHE_SIZE"), "{message}");
    }

    #[test]
    fn what_kubernetes_injects_for_a_service_is_passed_over() {
        let injected = [
            "SHOAL_SERVICE_HOST",
            "SHOAL_SERVICE_PORT",
            "SHOAL_SERVICE_PORT_HTTP",
            "SHOAL_PORT",
            "SHOAL_PORT_8080_TCP",
            "SHOAL_PORT_8080_TCP_ADDR",
            "SHOAL_ADMIN_SERVICE_HOST",
            "SHOAL_ADMIN_PORT_8081_TCP_PROTO",
        ];
        assert_eq!(check_names(&injected), Ok(()));
        assert!(known_variables().iter().all(|name| !is_service_link(name)));
    }
}
