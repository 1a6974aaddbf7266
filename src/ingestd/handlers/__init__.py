"""The steps, by the name under which `workflow.json` executes them."""

from __future__ import annotations

from collections.abc import Mapping

from ingestd.handlers import (
    aip,
    examination,
    extraction,
    fixity,
    formats,
    identifiers,
    metadata,
    names,
    policies,
    sip,
    transfer,
    validation,
    viruses,
)
from ingestd.job import Handler

HANDLERS: Mapping[str, Handler] = {
    "receive_transfer": transfer.receive_transfer,
    "remove_hidden_files_and_directories": transfer.remove_hidden_files_and_directories,
    "remove_unneeded_files": transfer.remove_unneeded_files,
    "restructure_for_compliance": transfer.restructure_for_compliance,
    "verify_transfer_compliance": transfer.verify_transfer_compliance,
    "check_transfer_directory_for_objects": transfer.check_transfer_directory_for_objects,
    "save_directory_tree": transfer.save_directory_tree,
    "assign_uuids_to_directories": identifiers.assign_uuids_to_directories,
    "assign_file_uuids": identifiers.assign_file_uuids,
    "assign_checksums_and_file_sizes": fixity.assign_checksums_and_file_sizes,
    "change_object_names": names.change_object_names,
    "scan_for_viruses": viruses.scan_for_viruses,
    "refuse_infected": viruses.refuse_infected,
    "extract_contents": extraction.extract_contents,
    "identify_file_format": formats.identify_file_format,
    "store_file_modification_dates": formats.store_file_modification_dates,
    "characterize_file": formats.characterize_file,
    "validate_file": validation.validate_file,
    "policy_check": policies.policy_check,
    "examine_contents": examination.examine_contents,
    "load_metadata_csv": metadata.load_metadata_csv,
    "move_submission_documentation": sip.move_submission_documentation,
    "move_metadata": sip.move_metadata,
    "generate_mets": aip.generate_mets,
    "add_readme": aip.add_readme,
    "write_logs": aip.write_logs,
    "prepare_aip": aip.prepare_aip,
    "compress_aip": aip.compress_aip,
    "verify_aip": aip.verify_aip,
    "store_aip": aip.store_aip,
    "keep_failed_package": aip.keep_failed_package,
}
