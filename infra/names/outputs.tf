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

output "events_topic" {
  description = "Topic of what is told of couriers and orders."
  value       = "${local.prefix}events-topic"
}

output "events_queue" {
  description = "Queue from which the couriers' dispatcher takes them."
  value       = "${local.prefix}events-queue"
}

output "assignments_topic" {
  description = "Topic of which order went to which courier."
  value       = "${local.prefix}assignments-topic"
}

output "assignments_queue" {
  description = "Queue from which the couriers' directory takes them."
  value       = "${local.prefix}assignments-queue"
}

output "dead_letter_queue" {
  description = "Queue of what can never be understood."
  value       = "${local.prefix}dead-letter-queue"
}

output "server_policy" {
  description = "Policy of what the server may do."
  value       = "${local.prefix}odyssey-server"
}

output "dispatcher_policy" {
  description = "Policy of what the couriers' dispatcher may do."
  value       = "${local.prefix}odyssey-dispatcher"
}

output "directory_policy" {
  description = "Policy of what the couriers' directory may do."
  value       = "${local.prefix}odyssey-directory"
}

output "redrive_policy" {
  description = "Policy of what may be done to bring back what was not understood."
  value       = "${local.prefix}odyssey-redrive"
}

output "protected" {
  description = "Whether tables refuse to be deleted."
  value       = var.workspace == "prod"
}

output "tags" {
  description = "On everything. What is said here wins over what was asked for."
  value       = merge(var.tags, tomap({ Project = "odyssey", Workspace = var.workspace }))
}
