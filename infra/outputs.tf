output "assignments_table" {
  description = "For assignments.table."
  value       = aws_dynamodb_table.assignments.name
}

output "packages_table" {
  description = "For assignments.packages_table."
  value       = aws_dynamodb_table.packages.name
}

output "log_bucket" {
  description = "For oplog.bucket."
  value       = aws_s3_bucket.log.bucket
}

output "server_policy_arn" {
  description = "To be attached to the role that the server runs as."
  value       = aws_iam_policy.server.arn
}

output "environment" {
  description = "The same for the server's environment: terraform output -raw environment > odyssey.env"
  value       = <<-END
    ODYSSEY_ASSIGNMENTS__STORE=dynamodb
    ODYSSEY_ASSIGNMENTS__TABLE=${aws_dynamodb_table.assignments.name}
    ODYSSEY_ASSIGNMENTS__PACKAGES_TABLE=${aws_dynamodb_table.packages.name}
    ODYSSEY_OPLOG__SINK=s3
    ODYSSEY_OPLOG__BUCKET=${aws_s3_bucket.log.bucket}
    AWS_REGION=${var.region}
  END
}
