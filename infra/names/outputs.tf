output "assignments_table" {
  description = "Table of assignments."
  value       = "${local.prefix}DeliveryAssignments"
}

output "packages_table" {
  description = "Table of who has which package."
  value       = "${local.prefix}DeliveryPackages"
}

output "by_package" {
  description = "Index of the assignments by package."
  value       = "by_package"
}

output "log_bucket" {
  description = "Bucket of the operational log."
  value       = "${local.prefix}odyssey-log-${var.bucket_suffix}"
}

output "log_prefix" {
  description = "What the keys of the operational log begin with."
  value       = "logs/"
}

output "server_policy" {
  description = "Policy of what the server may do."
  value       = "${local.prefix}odyssey-server"
}

output "protected" {
  description = "Whether tables refuse to be deleted."
  value       = var.workspace == "prod"
}

output "tags" {
  description = "On everything. What is said here wins over what was asked for."
  value       = merge(var.tags, tomap({ Project = "odyssey", Workspace = var.workspace }))
}
