variable "region" {
  description = "Where everything is."
  type        = string
  default     = "eu-west-2"
}

variable "endpoint" {
  description = "Address of an emulator of all services, such as http://localhost:4566. Nothing is sent to Amazon then, and no credentials are needed. Without it: Amazon."
  type        = string
  default     = null

  validation {
    condition     = var.endpoint == null || can(regex("^https?://[^/]+$", var.endpoint))
    error_message = "The endpoint is an address without a path, such as http://localhost:4566."
  }
}

variable "bucket_suffix" {
  description = "Ends the bucket's name, because bucket names are shared by all customers of Amazon: an organisation's name, say, or an account's number."
  type        = string
}

variable "log_transition_days" {
  description = "Age in days at which a log file moves to storage for infrequent access. At least 30, which is Amazon's bound. Files below 128 KiB stay where they are, because moving them would cost more than it saves."
  type        = number
  default     = 30

  validation {
    condition     = var.log_transition_days >= 30
    error_message = "S3 moves nothing to infrequent access before it is 30 days old."
  }
}

variable "log_expiry_days" {
  description = "Age in days at which a log file is deleted. More than log_transition_days."
  type        = number
  default     = 365

  validation {
    condition     = var.log_expiry_days > var.log_transition_days
    error_message = "A log file is moved before it is deleted: log_expiry_days must be more than log_transition_days."
  }
}

variable "log_recovery_days" {
  description = "For how many days a log file that was deleted or overwritten can be brought back. At least 1."
  type        = number
  default     = 30

  validation {
    condition     = var.log_recovery_days >= 1
    error_message = "S3 counts in whole days, from 1."
  }
}

variable "tags" {
  description = "Put on everything, beside those that tell the project and the workspace."
  type        = map(string)
  default     = {}
}
